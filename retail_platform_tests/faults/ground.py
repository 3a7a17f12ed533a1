"""What a scenario of the fault matrix is, and the ground on which it plays.

Here: the vocabulary, fresh homes on either catalog, and the time limit that every scenario has. Not here: any fault
(the modules beside this one).
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

from retail_platform.lakehouse import LakeError, Lakehouse
from retail_platform.settings import IntakeSettings, LakeSettings, Settings
from retail_platform_tests.postgres import PostgresServer

Catalog = Literal["sqlite", "postgres"]
CATALOGS: tuple[Catalog, ...] = ("sqlite", "postgres")


class CannotRun(Exception):
    """This machine lacks what a scenario needs; the message says what."""


class TookTooLong(Exception):
    """A scenario did not end within its time; the message says what it waited for."""


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario: how often the fault was made, what was seen, and every law that was broken."""

    rounds: int
    seen: str
    violations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ground:
    """A folder of its own and a catalog; `server` is the PostgreSQL server, where the catalog is in one."""

    folder: Path
    catalog: Catalog
    server: PostgresServer | None

    @contextmanager
    def home(self) -> Iterator[Settings]:
        """Settings of a home without a lake; with PostgreSQL its catalog is a database of its own."""
        name = f"faults_{uuid4().hex[:12]}"
        home = self.folder / name
        home.mkdir(parents=True)
        if self.server is None:
            yield settings_of(home, "sqlite")
            return
        yield settings_of(home, self.server.new_database(name))
        self.server.drop_database(name)


def settings_of(home: Path, catalog: str) -> Settings:
    """The settings of every process of the matrix; `catalog` is 'sqlite' or the address of a database."""
    return Settings(
        home=home,
        catalog=catalog,
        intake=IntakeSettings(quiet_seconds=0),
        lake=LakeSettings(memory_limit="1GB", threads=1, lock_timeout_seconds=30),
    )


@dataclass(frozen=True)
class Scenario:
    """A row of the matrix. `play` makes the fault `rounds` times; `quick` is the number of rounds in `make test`, on all
    catalogs or on one, and none where it is 0. What has not ended after `seconds` has failed.
    """

    fault: str
    method: str
    play: Callable[[Ground, int], Outcome]
    rounds: int
    quick: int = 1
    catalogs: tuple[Catalog, ...] = CATALOGS
    quick_only_on: Catalog | None = None
    seconds: float = 600

    @property
    def quick_on(self) -> tuple[Catalog, ...]:
        return (self.quick_only_on,) if self.quick_only_on else self.catalogs

    def played(self, ground: Ground, rounds: int, seconds: float | None = None) -> Outcome:
        """What comes of it; an outcome with a violation where it takes too long."""
        limit = seconds or self.seconds
        try:
            with time_limit(limit):
                return self.play(ground, rounds)
        except TookTooLong as late:
            return Outcome(0, "", (f"it did not end within {limit:g} s{late}",))


@dataclass(frozen=True)
class Theme:
    """Scenarios under one law, in the words of the report."""

    name: str
    law: str
    scenarios: tuple[Scenario, ...]


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` in this, the main thread, wherever it waits after so many seconds."""

    def ring(_: int, __: object) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ask(lake: Lakehouse, sql: str) -> list[tuple[object, ...]]:
    """Rows of a query; none where the lake or the table was never made."""
    try:
        return lake.query(sql).rows()
    except LakeError as error:
        if "there is no lake" in str(error) or "does not exist" in str(error):
            return []
        raise
