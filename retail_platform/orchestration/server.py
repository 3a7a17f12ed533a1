"""The Dagster UI, its daemon and the code server that both ask, as child processes of one command.

Left to themselves the UI and the daemon would each start a code server, and the daemon a new one every minute, which
takes a tenth of a processor for as long as they run. Here they share one, which is looked after.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

from retail_platform.orchestration.dead_runs import give_up_dead_runs
from retail_platform.orchestration.runner import RunFailed, instance_of
from retail_platform.settings import Settings, configuration_file

LOCATION = "retail_platform"
"""As in workspace.yaml: state of sensors is kept under this name."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOOK_SECONDS = 5
_START_SECONDS = 60
_RELOAD_SECONDS = 180
_HEARTBEAT_SECONDS = 300
"""So long the code server goes on without this command; longer than any call of it may last."""
_STOP_SECONDS = 20
_STOP_CODE_SECONDS = 5


def serve(settings: Settings, host: str, port: int) -> int:
    """Run the UI and its daemon until one ends or the command is interrupted, then end both; the exit code of the one
    that ended.

    The Dagster UI asks nobody who they are: it listens on this machine alone unless `host` says otherwise. Raises
    `RunFailed` where the code server does not start.
    """
    with instance_of(settings) as instance:
        give_up_dead_runs(instance, daemon_starts=True)
    if host not in _LOOPBACK:
        sys.stderr.write(f"{host}: the Dagster UI has no login; put a proxy with one in front of it\n")
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(settings.dagster_home.absolute()),
        "RETAIL_HOME": str(settings.home.absolute()),
        "PYTHONUNBUFFERED": "1",
    }
    signal.signal(signal.SIGTERM, _interrupt)
    workspace = settings.dagster_home.absolute() / f"workspace-{port}.yaml"
    children: list[subprocess.Popen[bytes]] = []
    # The path of a socket may have about 100 letters; that of a home may have more.
    with TemporaryDirectory(prefix="retail-ui-") as folder:
        code = CodeServer(Path(folder) / "code.socket", environment)
        location = {"socket": str(code.socket), "location_name": LOCATION}
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}), encoding="utf-8")
        try:
            code.start()
            at, pointed = ["-h", host, "-p", str(port)], ["-w", str(workspace)]
            children.append(_launch(["dagster_webserver", *at, *pointed], environment))
            children.append(_launch(["dagster._daemon", "run", *pointed], environment))
            while all(child.poll() is None for child in children):
                code.look_after()
                sleep(0.5)
        except KeyboardInterrupt:
            return 0
        finally:
            code.interrupt()
            for child in children:
                child.send_signal(signal.SIGINT)
            _wait_for(children, _STOP_SECONDS)
            code.end()
            workspace.unlink(missing_ok=True)
    return next((child.returncode for child in children if child.returncode), 0)


class CodeServer:
    """Dagster's code server: a process that stays, and behind it one that has loaded the code.

    "Reload definitions" in the UI has it load the code anew, with the settings as they are then; so does a change of
    `retail.toml`. Runs that the former process behind it has started go on.
    """

    def __init__(self, socket: Path, environment: dict[str, str]) -> None:
        self.socket = socket
        self._environment = environment
        self._client = DagsterGrpcClient(socket=str(socket))
        self._configuration = self._state_of_configuration()
        self._process: subprocess.Popen[bytes] | None = None
        self._next_look = 0.0

    def start(self) -> None:
        """Start it, and return when it has loaded the code or failed to, which the UI then shows.

        Raises `RunFailed` where it ends by itself.
        """
        process = self._start()
        while not self._reaches(self._client.heartbeat):
            if process.poll() is not None:
                raise RunFailed(
                    f"Dagster's code server ended with exit code {process.returncode}; what it said stands above. See "
                    "`retail-platform doctor`, and whether variables that begin with DAGSTER_ are set"
                )
            sleep(0.2)

    def look_after(self) -> None:
        """Every few seconds: start it anew where it does not answer, have it load the code anew where the settings have
        changed."""
        if monotonic() < self._next_look:
            return
        self._next_look = monotonic() + _LOOK_SECONDS
        configuration = self._state_of_configuration()
        # The process that stays answers heartbeats, by which it knows of us; the one behind it answers pings.
        if not (self._reaches(self._client.heartbeat) and self._reaches(self._client.ping)):
            sys.stderr.write("the code server does not answer and is started anew\n")
            self.interrupt()
            self.end()
            self._configuration = configuration
            self._start()
            self._next_look = monotonic() + _START_SECONDS
        elif configuration != self._configuration:
            try:
                self._client.reload_code(timeout=_RELOAD_SECONDS)
            except DagsterUserCodeUnreachableError as error:
                sys.stderr.write(f"the changed settings could not be taken on, and will be tried again: {error}\n")
            else:
                self._configuration = configuration

    def interrupt(self) -> None:
        """Ask it to end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Wait a moment for its end and then make it: it would wait for the runs that it started, which go on without
        it, as does the process behind it until then."""
        if self._process is not None:
            _wait_for([self._process], _STOP_CODE_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        self.socket.unlink(missing_ok=True)
        code = ["--module-name", "retail_platform.definitions", "--location-name", LOCATION]
        life = ["--heartbeat", "--heartbeat-timeout", str(_HEARTBEAT_SECONDS)]
        command = ["dagster", "code-server", "start", "--socket", str(self.socket), *code, *life]
        self._process = _launch(command, self._environment)
        return self._process

    def _reaches(self, call: Callable[[str], object]) -> bool:
        try:
            call("")
        except DagsterUserCodeUnreachableError:
            return False
        return True

    def _state_of_configuration(self) -> tuple[str, int, int] | None:
        try:
            file = configuration_file(self._environment)
            facts = file.stat()
        except OSError:
            return None
        return str(file), facts.st_mtime_ns, facts.st_size


def _launch(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *command], env=environment)  # noqa: S603


def _wait_for(children: list[subprocess.Popen[bytes]], seconds: float) -> None:
    for child in children:
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
