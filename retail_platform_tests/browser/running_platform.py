"""A platform that the browser tests start for themselves and stop again.

Here: the UI with its daemon on a free port over a home folder, and what a test asks of both without a browser. Not here: any expectation (the test modules).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError
from urllib.request import Request, urlopen

from retail_platform.lakehouse import Lakehouse
from retail_platform_tests.simulated_retailer import SMALL, small_settings

Found = TypeVar("Found")

_COMMAND = (sys.executable, "-m", "retail_platform.cli")
_UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


def chromium() -> str | None:
    """Debian's Chromium, or whatever stands in for it on the path."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def wait_for(what: str, look: Callable[[], Found | None], *, seconds: float, every: float = 1) -> Found:
    """Look until something is found, and return it; fail with `what` was waited for when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} seconds in vain for {what}")
        time.sleep(every)


@dataclass
class RunningPlatform:
    """A home folder and, once `start` was called, the Dagster UI with its daemon over it."""

    home: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.home.parent / "ui.log"

    def days_of_commits(self, table: str, newest: int) -> set[str]:
        """First and last business day that each of the newest commits of a table replaced, as its provenance names
        them.
        """
        commits = (json.loads(text or "{}") for text in self._lake.snapshots()["commit_extra_info"])
        return set(islice((str(commit["partition"]) for commit in commits if commit.get("asset") == table), newest))

    def query_lake(self, statement: str) -> list[dict[str, Any]]:
        """Rows of the lake, read beside the processes that write to it. In this process: a command each time would
        take the processor from the runs that are waited for."""
        return self._lake.query(statement).to_dicts()

    @cached_property
    def _lake(self) -> Lakehouse:
        return Lakehouse(small_settings(self.home))

    def start(self) -> None:
        """Start the UI and its daemon, and wait until the UI has loaded the code location."""
        self.port = _free_port()
        with self.log.open("wb") as log:
            # A session of its own, by which everything that it starts can be recognised.
            self.process = subprocess.Popen(
                [*_COMMAND, "ui", "--port", str(self.port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=self._folder(),
                start_new_session=True,
            )
        try:
            wait_for("the UI to load the code location", self._is_up, seconds=120)
        except AssertionError as late:
            raise AssertionError(f"{late}; its log ends: {self.log.read_text()[-3000:]}") from None

    def stop(self) -> list[int]:
        """End the command, and return the ids of processes of its session that are left half a minute later."""
        if self.process is None:
            return []
        session, self.process = self.process, None
        session.send_signal(signal.SIGTERM)
        try:
            session.wait(timeout=60)
        except subprocess.TimeoutExpired:
            session.kill()
            session.wait()
        deadline = time.monotonic() + 30
        while (left := _processes_of_session(session.pid)) and time.monotonic() < deadline:
            time.sleep(0.5)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        return left

    def query(self, question: str) -> dict[str, Any]:
        """The answer of Dagster's GraphQL interface."""
        body = json.dumps({"query": question}).encode()
        request = Request(f"{self.address}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
        with urlopen(request, timeout=60) as answer:  # noqa: S310
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def tables_of_runs(self) -> dict[str, set[str]]:
        """The tables that each run was asked for, by the id of the run, the oldest first."""
        runs = self.query("{ runsOrError(limit: 50) { ... on Runs { results { runId assetSelection { path } } } } }")
        return {
            run["runId"]: {".".join(key["path"]) for key in run["assetSelection"] or ()}
            for run in reversed(runs["runsOrError"]["results"])
        }

    def code_servers(self) -> set[int]:
        """The processes that have loaded the code and answer questions about it, of which one is on its way out for a
        while where another has taken its place."""
        assert self.process is not None
        servers = set()
        for pid in _processes_of_session(self.process.pid):
            # One that has just ended.
            with suppress(OSError):
                if b"grpc" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    servers.add(pid)
        return servers

    def updated_at(self) -> float:
        """When the UI last had news of the code location."""
        answer = self.query("{ workspaceOrError { ... on Workspace { locationEntries { updatedTimestamp } } } }")
        (location,) = answer["workspaceOrError"]["locationEntries"]
        return float(location["updatedTimestamp"])

    def columns(self, table: str) -> list[str]:
        """The columns of a table as the loaded code declares them."""
        path = json.dumps(table.split("."))
        node = self.query(
            f"""{{ assetNodeOrError(assetKey: {{path: {path}}}) {{ ... on AssetNode {{ metadataEntries {{
                ... on TableSchemaMetadataEntry {{ schema {{ columns {{ name }} }} }}
            }} }} }} }}"""
        )["assetNodeOrError"]
        schemas = [entry["schema"] for entry in node.get("metadataEntries", ()) if "schema" in entry]
        return [column["name"] for schema in schemas for column in schema["columns"]]

    def finished_run(self, run_id: str, *, seconds: float) -> str:
        """Wait for the end of the run whose id begins with `run_id`, and return its status, with what failed in it."""
        run = wait_for(f"run {run_id} to end", lambda: self._finished(run_id), seconds=seconds)
        return str(run["status"]) if run["status"] == "SUCCESS" else f"{run['status']}: {self._failures(run['runId'])}"

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the UI ended by itself: {self.log.read_text()[-3000:]}"
        try:
            return bool(self.query("{ assetNodes { id } }")["assetNodes"])
        except (URLError, ConnectionError, TimeoutError):
            return False

    def _finished(self, run_id: str) -> dict[str, Any] | None:
        runs = self.query("{ runsOrError(limit: 50) { ... on Runs { results { runId status } } } }")
        (run,) = (run for run in runs["runsOrError"]["results"] if run["runId"].startswith(run_id))
        return None if run["status"] in _UNFINISHED else dict(run)

    def _failures(self, run_id: str) -> list[str]:
        events = self.query(
            f"""{{ runOrError(runId: "{run_id}") {{ ... on Run {{ eventConnection {{ events {{
                ... on ExecutionStepFailureEvent {{ stepKey error {{ message causes {{ message }} }} }}
                ... on RunFailureEvent {{ message }}
            }} }} }} }} }}"""
        )["runOrError"]["eventConnection"]["events"]
        return [json.dumps(event) for event in events if event]

    def _environment(self) -> dict[str, str]:
        """This process's, without settings of the platform or an instance of Dagster that may lie about in it."""
        others = {k: v for k, v in os.environ.items() if not k.startswith(("RETAIL_", "DAGSTER_"))}
        return {**others, **SMALL, "RETAIL_HOME": str(self.home)}

    def _folder(self) -> Path:
        return self.home.parent


def _processes_of_session(session: int) -> list[int]:
    """Living processes of a session, zombies left aside; read from /proc, so Linux only."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # After the last ')', since a program's name may hold blanks: state, parent, process group, session.
            state, _, _, of_session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of_session) == session and state != "Z":
            found.append(int(entry.name))
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
