"""What the writers of a scenario had acknowledged, and every way in which the lake differs from it.

The law: what was acknowledged is there exactly once; the one write under way when the process died is there once or
not at all; no part of a slice is there; the next writer is not hindered; and nothing is left but files that fsck
finds and maintenance removes.
"""

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from retail_platform.lakehouse import LakeError, Lakehouse
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.lakehouse import CommitStep
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.settings import Settings
from retail_platform_tests.faults.ground import Outcome, ask
from retail_platform_tests.faults.worker import DAYS, JOBS, ROWS, Order, landing_text
from retail_platform_tests.faults.workers import Ended
from retail_platform_tests.lakehouse.shop import MONDAY

SEED = 20170101


@dataclass
class Books:
    """What the parent knows of a job: the last write that was acknowledged. The one after it may be under way."""

    last: int = -1

    @property
    def under_way(self) -> int:
        return self.last + 1


@dataclass
class Writing:
    """Writers of a home, one after the other, each at one of the jobs in turn and disturbed in its own way."""

    settings: Settings
    chance: random.Random
    books: dict[str, Books] = field(default_factory=lambda: {job: Books() for job in JOBS})
    violations: list[str] = field(default_factory=list)
    acknowledged: int = 0
    slowest: float = 0

    def __post_init__(self) -> None:
        self._first = self.chance.randrange(len(JOBS))

    def order(self, number: int, kill_at: CommitStep | None = None) -> Order:
        """What the writer of round `number` is to do: go on with its job where the last one died."""
        job = list(JOBS)[(self._first + number) % len(JOBS)]
        return Order(
            home=str(self.settings.home),
            catalog=self.settings.catalog,
            job=job,
            first=self.books[job].under_way,
            kill_at=kill_at or "",
            kill_in_commit=self.chance.randint(1, 4),
        )

    def judge(self, number: int, lake: Lakehouse, order: Order, ended: Ended, wrong_end: str = "") -> None:
        """Hold the lake against what the writer of round `number` had acknowledged when it ended."""
        job, books = order.job, self.books[order.job]
        self.acknowledged += len(ended.acknowledged)
        self.slowest = max(self.slowest, ended.first_after)
        books.last = max([books.last, *ended.acknowledged])
        broken = [*([wrong_end] if wrong_end else []), *law(lake, job, books)]
        self.violations += [f"round {number} ({job}): {words}" for words in broken]

    def outcome(self, rounds: int, lake: Lakehouse, seen: str = "") -> Outcome:
        """What came of all rounds, after what was under way has been written and the leftovers removed."""
        if self.violations:
            return Outcome(rounds, seen, tuple(self.violations))
        for job, books in self.books.items():
            self.violations += [f"after all rounds ({job}): {broken}" for broken in write_on(lake, job, books)]
        removed, broken = leftovers(lake)
        slowest = f"slowest first write after a fault {self.slowest:.1f} s; " if self.slowest else ""
        words = (
            f"{self.acknowledged:,} writes acknowledged; {slowest}"
            f"{removed} leftover files found by fsck and removed by maintenance"
        )
        return Outcome(rounds, f"{seen}{words}", (*self.violations, *broken))


def write_on(lake: Lakehouse, job: str, books: Books) -> list[str]:
    """What was under way is written again, by a writer that nobody disturbs; then nothing is in doubt."""
    order = Order(
        home=str(lake.settings.home),
        catalog=lake.settings.catalog,
        job=job,
        first=books.under_way,
        last=books.under_way,
    )
    for number in JOBS[job](lake, order):
        books.last = number
    return law(lake, job, books, settled=True)


def killed(ended: Ended) -> str:
    """What is wrong with the end of a writer that was to be killed."""
    return "" if ended.code == -9 else f"the writer was not killed, it ended with {ended.code}: {ended.errors[-500:]}"


def leftovers(lake: Lakehouse) -> tuple[int, list[str]]:
    """How many files of killed writes fsck finds and maintenance removes, and whatever else is found."""
    findings = fsck(lake, orphans_older_than=timedelta(0))
    wrong = [finding.message for finding in findings if finding.kind != "file not catalogued"]
    later = datetime.now(UTC) + timedelta(hours=lake.settings.lake.file_guard_hours + 1)
    removed = maintain(lake, now=later).orphans_removed
    if removed != len(findings) - len(wrong):
        wrong.append(f"fsck found {len(findings) - len(wrong)} leftover files and maintenance removed {removed}")
    wrong += [finding.message for finding in fsck(lake, orphans_older_than=timedelta(0), deep=True)]
    return removed, wrong


def law(lake: Lakehouse, job: str, books: Books, *, settled: bool = False) -> list[str]:
    """Every way in which the lake differs from what was acknowledged; `settled`: nothing may be under way."""
    try:
        return _differences(lake, job, books, settled=settled)
    except LakeError as error:
        return [f"the lake cannot be read: {error}"]


def _differences(lake: Lakehouse, job: str, books: Books, *, settled: bool) -> list[str]:
    allowed = {books.last} if settled else {books.last, books.under_way}
    if job == "replace slices":
        return _slices_law(lake, books, settled=settled)
    if job == "replace table":
        return _one_of("shop.whole", ask(lake, "SELECT count(*), min(units), max(units) FROM shop.whole"), allowed)
    return _files_law(lake, books, settled=settled)


def _slices_law(lake: Lakehouse, books: Books, *, settled: bool) -> list[str]:
    tables = ("shop.sales", "shop.stock")
    found: dict[str, Mapping[object, tuple[object, ...]]] = {
        table: {
            day: rest
            for day, *rest in ask(lake, f"SELECT day, count(*), min(units), max(units) FROM {table} GROUP BY day")
        }
        for table in tables
    }
    violations = []
    if found[tables[0]] != found[tables[1]]:
        violations.append("the two tables of one transaction differ")
    for table in tables:
        for offset in range(DAYS):
            day = MONDAY + timedelta(days=offset)
            newest = max(
                (n for n in range(max(0, books.last - DAYS + 1), books.last + 1) if n % DAYS == offset), default=-1
            )
            allowed = {newest}
            if not settled and books.under_way % DAYS == offset:
                allowed.add(books.under_way)
            rows = [tuple(found[table][day])] if day in found[table] else []
            violations += _one_of(f"{table} of {day}", rows, allowed)
    return violations


def _one_of(what: str, rows: list[tuple[object, ...]], allowed: set[int]) -> list[str]:
    """The rows must be those of exactly one of the writes allowed; write -1 stands for no row."""
    whole = {(ROWS, number, number) for number in allowed if number >= 0}
    if rows and rows[0] in whole:
        return []
    if -1 in allowed and (not rows or rows[0][0] == 0):
        return []
    return [f"{what} holds (rows, least, greatest) {rows}, and only writes {sorted(allowed)} may be there, whole"]


def _files_law(lake: Lakehouse, books: Books, *, settled: bool) -> list[str]:
    ids = {hashlib.sha256(landing_text(n).encode()).hexdigest(): n for n in range(books.under_way + 1)}
    ledger = ask(lake, "SELECT file_id, count(*), sum(rows)::BIGINT FROM raw.ingested_files GROUP BY file_id")
    raw = ask(lake, "SELECT file_id, count(*), count(DISTINCT row_number) FROM raw.pos_sales GROUP BY file_id")
    violations = [f"a file that never arrived is in the lake: {row}" for row in [*ledger, *raw] if row[0] not in ids]
    booked = {ids[str(row[0])]: row[1:] for row in ledger if row[0] in ids}
    stored = {ids[str(row[0])]: row[1:] for row in raw if row[0] in ids}
    for number in range(books.under_way + 1):
        there = (booked.get(number), stored.get(number))
        if there == ((1, ROWS), (ROWS, ROWS)) and not (settled and number == books.under_way):
            continue
        if there == (None, None) and number == books.under_way:
            continue
        violations.append(f"landing file {number}: (ledger, raw) hold {there}; last acknowledged is {books.last}")
    return violations
