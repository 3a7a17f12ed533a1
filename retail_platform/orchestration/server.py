"""The Dagster UI and its daemon as two child processes of one command."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

from retail_platform.orchestration.dead_runs import give_up_dead_runs
from retail_platform.orchestration.runner import instance_of
from retail_platform.settings import Settings

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(settings: Settings, host: str, port: int) -> int:
    """Run both until one ends or the command is interrupted, then end both; the exit code of the one that ended.

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
    workspace = ["-w", str(Path(__file__).parents[2] / "workspace.yaml")]
    commands = [
        ["dagster_webserver", "-h", host, "-p", str(port), *workspace],
        ["dagster._daemon", "run", *workspace],
    ]
    children = [subprocess.Popen([sys.executable, "-m", *command], env=environment) for command in commands]  # noqa: S603
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while all(child.poll() is None for child in children):
            sleep(0.5)
    except KeyboardInterrupt:
        return 0
    finally:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
    return next((child.returncode for child in children if child.returncode), 0)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
