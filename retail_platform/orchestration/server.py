"""The Dagster UI, its daemon and the code server that both ask, as child processes of one command.

Left to themselves the UI and the daemon would each start a code server, and the daemon a new one every minute, which
takes a tenth of a processor for as long as they run. Here they share one, which is looked after.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._grpc.client import DagsterGrpcClient

from retail_platform.orchestration.dead_runs import give_up_dead_runs
from retail_platform.orchestration.runner import instance_of
from retail_platform.settings import Settings, configuration_file

LOCATION = "retail_platform"
"""As in workspace.yaml: state of sensors is kept under this name."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LOOK_SECONDS = 5
_RELOAD_SECONDS = 180
_STOP_SECONDS = 20


def serve(settings: Settings, host: str, port: int) -> int:
    """Run the UI and its daemon until one ends or the command is interrupted, then end both; the exit code of the one
    that ended.

    The Dagster UI asks nobody who they are: it listens on this machine alone unless `host` says otherwise.
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
    # The path of a socket may have about 100 letters; that of a home may have more.
    with TemporaryDirectory(prefix="retail-ui-") as folder:
        code = CodeServer(Path(folder) / "code.socket", environment)
        location = {"socket": str(code.socket), "location_name": LOCATION}
        workspace = Path(folder) / "workspace.yaml"
        workspace.write_text(json.dumps({"load_from": [{"grpc_server": location}]}), encoding="utf-8")
        children: list[subprocess.Popen[bytes]] = []
        try:
            code.wait_until_loaded()
            children.append(
                _start(["dagster_webserver", "-h", host, "-p", str(port), "-w", str(workspace)], environment)
            )
            children.append(_start(["dagster._daemon", "run", "-w", str(workspace)], environment))
            while all(child.poll() is None for child in children):
                code.look_after()
                sleep(0.5)
        except KeyboardInterrupt:
            return 0
        finally:
            _end([*children, code.process])
    return next((child.returncode for child in children if child.returncode), 0)


class CodeServer:
    """Dagster's code server: a process that stays, and behind it one that has loaded the code.

    "Reload definitions" in the UI has it load the code anew, with the settings as they are then; so does a change of
    `retail.toml`. Runs that the former one has started go on.
    """

    def __init__(self, socket: Path, environment: Mapping[str, str]) -> None:
        self.socket = socket
        self._environment = environment
        self._client = DagsterGrpcClient(socket=str(socket))
        self._configuration = _state_of_configuration()
        self._next_look = 0.0
        self.process = self._start()

    def wait_until_loaded(self) -> None:
        """Return when the code is loaded, with or without an error in it, which the UI then shows.

        Raises `RuntimeError` where the process ends by itself, having said why.
        """
        while not self._answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"Dagster's code server ended with exit code {self.process.returncode}")
            sleep(0.2)

    def look_after(self) -> None:
        """Every few seconds: start what has died, and load the code anew where the settings have changed."""
        if monotonic() < self._next_look:
            return
        configuration, self._configuration = self._configuration, _state_of_configuration()
        if self.process.poll() is not None:
            self.socket.unlink(missing_ok=True)
            self.process = self._start()
            self.wait_until_loaded()
        elif configuration != self._configuration or not self._answers():
            self._reload()
        self._next_look = monotonic() + _LOOK_SECONDS

    def _start(self) -> subprocess.Popen[bytes]:
        code = ["--module-name", "retail_platform.definitions", "--location-name", LOCATION]
        return _start(["dagster", "code-server", "start", "--socket", str(self.socket), *code], self._environment)

    def _answers(self) -> bool:
        try:
            self._client.ping("")
        except DagsterUserCodeUnreachableError:
            return False
        return True

    def _reload(self) -> None:
        try:
            self._client.reload_code(timeout=_RELOAD_SECONDS)
        except DagsterUserCodeUnreachableError as error:
            sys.stderr.write(f"the code could not be loaded anew, and will be tried again: {error}\n")


def _state_of_configuration() -> tuple[str, int, int] | None:
    file = configuration_file()
    try:
        facts = file.stat()
    except OSError:
        return None
    return str(file), facts.st_mtime_ns, facts.st_size


def _start(command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", *command], env=dict(environment))  # noqa: S603


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.send_signal(signal.SIGINT)
    deadline = monotonic() + _STOP_SECONDS
    for child in children:
        try:
            child.wait(timeout=max(deadline - monotonic(), 0))
        except subprocess.TimeoutExpired:
            child.kill()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
