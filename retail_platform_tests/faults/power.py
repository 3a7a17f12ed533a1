"""Power loss: what was acknowledged was forced to disk before, and what was not forced to disk is no part of it.

Writers are watched by strace. Their system calls say whether every file, and the folders that name it, had been forced
to disk (fsync) when the catalog committed; and after their end everything that they did not force to disk is taken away
before the lake is read again. The law is that of `books.py`.
"""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.lakehouse import CommitStep
from retail_platform.settings import Settings
from retail_platform_tests.faults.books import SEED, Writing, killed
from retail_platform_tests.faults.ground import CannotRun, Ground, Outcome
from retail_platform_tests.faults.system_calls import TRACED, Call, Disk, calls
from retail_platform_tests.faults.worker import Order
from retail_platform_tests.faults.workers import REPOSITORY, Ended

POINTS: tuple[CommitStep, ...] = ("committed", "synced", "inserted")
_COMMIT_IN_POSTGRES = re.compile(r'"Q.*?COMMIT')


def power_loss(ground: Ground, rounds: int) -> Outcome:
    """The power goes while a writer is at a named point of its commit, after a few that were acknowledged."""
    strace = shutil.which("strace")
    if strace is None:
        raise CannotRun("strace is not installed")
    chance = random.Random(f"{SEED} power")  # noqa: S311
    commits = forced = lost = 0
    with ground.home() as settings:
        writing = Writing(settings, chance)
        for number in range(rounds):
            order = writing.order(number, POINTS[number % len(POINTS)])
            ended, watched = _watched(strace, order, ground.folder / f"calls-{number}")
            commits, forced = commits + watched.commits, forced + watched.forced
            lost += watched.disk.take_what_is_not_safe(below=lambda path: _is_of_lake(settings, path))
            settings.catalog_file.with_name(f"{settings.catalog_file.name}-shm").unlink(missing_ok=True)
            writing.violations += [f"round {number} ({order.job}): {words}" for words in watched.violations]
            lake = Lakehouse(settings)
            writing.judge(number, lake, order, ended, killed(ended))
            # A log that a reader keeps open would be written back over what was lost.
            lake._reader.close()
        if not forced:
            writing.violations.append("no file was seen that was forced to disk before a commit")
        seen = (
            f"{commits} commits watched, before which {forced} files were forced to disk, none too late; "
            f"from {lost} files was taken what was not; "
        )
        return writing.outcome(rounds, Lakehouse(settings), seen)


class _Watch:
    """Follows the calls of a writer and holds every commit of the catalog against what is on disk at that moment."""

    def __init__(self, settings: Settings) -> None:
        self.disk = Disk(settings.home)
        self.commits = 0
        self.forced = 0
        self.violations: list[str] = []
        self._settings = settings
        self._new: set[Path] = set()

    def follow(self, call: Call) -> None:
        self.disk.follow(call)
        # A file gets its rows in the table's folder, or a name there once it has them.
        file = call.paths[-1] if call.name in {"link", "linkat"} else call.file
        if call.name in {"write", "pwrite64", "link", "linkat"} and file and _is_data(self._settings, file):
            self._new.add(file)
        elif self._commits(call):
            self.commits += 1
            self.forced += len(self._new)
            self.violations += [f"at a commit, {loss}" for path in sorted(self._new) for loss in self.disk.losses(path)]
            self._new = set()

    def _commits(self, call: Call) -> bool:
        """Whether the call makes the commit: the catalog's log is forced to disk, or its server is told to."""
        if not self._new:
            return False
        if self._settings.catalog == "sqlite":
            log = f"{self._settings.catalog_file}-wal"
            return call.name in {"fsync", "fdatasync"} and str(call.file) == log
        return call.name in {"sendto", "write"} and bool(_COMMIT_IN_POSTGRES.search(call.arguments))


def _watched(strace: str, order: Order, record: Path) -> tuple[Ended, _Watch]:
    """Let a process of its own carry out an order, and follow its system calls."""
    watch = _Watch(order.settings)
    watching = [strace, "-f", "-y", "-qq", "-s", "4096", "--seccomp-bpf", "-e", f"trace={TRACED}", "-o", str(record)]
    done = subprocess.run(
        [*watching, sys.executable, "-m", "retail_platform_tests.faults.worker", order.as_json()],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    for call in calls(record):
        watch.follow(call)
    record.unlink()
    acknowledged = tuple(int(line) for line in done.stdout.splitlines())
    return Ended(done.returncode, acknowledged, 0.0, done.stderr), watch


def _is_data(settings: Settings, path: Path) -> bool:
    return path.suffix == ".parquet" and path.is_relative_to(settings.lake_data)


def _is_of_lake(settings: Settings, path: Path) -> bool:
    return _is_data(settings, path) or path.name.startswith(settings.catalog_file.name)
