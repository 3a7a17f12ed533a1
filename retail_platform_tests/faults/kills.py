"""kill -9 of writers, at random moments and at named points of a commit.

The law: what was acknowledged is there exactly once; the one write under way when the process died is there once or
not at all; no part of a slice is there; the next writer is not hindered; and nothing is left but files that fsck
finds and maintenance removes.
"""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.lakehouse import CommitStep
from retail_platform.lakehouse.maintenance import maintain
from retail_platform_tests.faults.ground import Ground, Outcome, ask
from retail_platform_tests.faults.worker import DAYS, JOBS, ROWS, Order, landing_text
from retail_platform_tests.faults.workers import Ended, workers
from retail_platform_tests.lakehouse.shop import MONDAY

SEED = 20170101


@dataclass
class Books:
    """What the parent knows of a job: the last write that was acknowledged. The one after it may be under way."""

    last: int = -1

    @property
    def under_way(self) -> int:
        return self.last + 1


def kill_at(point: CommitStep) -> Callable[[Ground, int], Outcome]:
    """A scenario whose writers kill themselves at `point` of their first, second, third or fourth commit."""

    def play(ground: Ground, rounds: int) -> Outcome:
        return _kill(ground, rounds, point)

    return play


def kill_at_random(ground: Ground, rounds: int) -> Outcome:
    """Writers are killed from outside, within 0.8 s after they began or had a write acknowledged."""
    return _kill(ground, rounds, None)


def kill_while_creating(ground: Ground, rounds: int) -> Outcome:
    """The first writer of a home is killed within 0.4 s: the lake may be half made. The second makes it."""
    chance = random.Random(SEED)  # noqa: S311
    violations: list[str] = []
    without = 0
    with workers(rounds) as begin:
        for number in range(rounds):
            with ground.home() as settings:
                worker = begin(Order(str(settings.home), settings.catalog, "ingest"))
                time.sleep(chance.uniform(0, 0.4))
                ended = worker.kill()
                books = Books(max(ended.acknowledged, default=-1))
                without += not ended.acknowledged
                lake = Lakehouse(settings)
                broken = _law(lake, "ingest", books)
                broken += _write_on(lake, "ingest", books) + _leftovers(lake)[1]
                violations += [f"round {number}: {words}" for words in broken]
    return Outcome(rounds, f"{without} homes in which nothing had been acknowledged yet", tuple(violations))


def _kill(ground: Ground, rounds: int, point: CommitStep | None) -> Outcome:
    chance = random.Random(f"{SEED} {point}")  # noqa: S311
    books = {job: Books() for job in JOBS}
    turn = list(JOBS)[chance.randrange(len(JOBS)) :] + list(JOBS)
    violations: list[str] = []
    acknowledged, slowest = 0, 0.0
    with ground.home() as settings, workers(rounds) as begin:
        lake = Lakehouse(settings)
        for number in range(rounds):
            job = turn[number % len(JOBS)]
            order = Order(
                str(settings.home),
                settings.catalog,
                job,
                first=books[job].under_way,
                kill_at=point or "",
                kill_in_commit=chance.randint(1, 4),
            )
            worker = begin(order)
            if point is None:
                worker.await_acknowledged(chance.randint(0, 2))
                time.sleep(chance.uniform(0, 0.8))
                ended = worker.kill()
            else:
                ended = worker.end()
            acknowledged += len(ended.acknowledged)
            slowest = max(slowest, ended.first_after)
            books[job].last = max([books[job].last, *ended.acknowledged])
            where = f"round {number} ({job}): "
            violations += [where + broken for broken in [*_ended_as_killed(ended), *_law(lake, job, books[job])]]
        for job in JOBS:
            violations += [f"after all rounds ({job}): {broken}" for broken in _write_on(lake, job, books[job])]
        leftovers, broken = _leftovers(lake)
    seen = (
        f"{acknowledged:,} writes acknowledged; slowest first write after a kill {slowest:.1f} s; "
        f"{leftovers} leftover files found by fsck and removed by maintenance"
    )
    return Outcome(rounds, seen, (*violations, *broken))


def _write_on(lake: Lakehouse, job: str, books: Books) -> list[str]:
    """What was under way is written again, by a writer that nobody kills; then nothing is in doubt."""
    order = Order(str(lake.settings.home), lake.settings.catalog, job, books.under_way, books.under_way)
    for number in JOBS[job](lake, order):
        books.last = number
    return _law(lake, job, books, settled=True)


def _ended_as_killed(ended: Ended) -> list[str]:
    return [] if ended.code == -9 else [f"the writer was not killed, it ended with {ended.code}: {ended.errors[-500:]}"]


def _leftovers(lake: Lakehouse) -> tuple[int, list[str]]:
    """How many files of killed writes fsck finds and maintenance removes, and whatever else is found."""
    findings = fsck(lake, orphans_older_than=timedelta(0))
    wrong = [finding.message for finding in findings if finding.kind != "file not catalogued"]
    later = datetime.now(UTC) + timedelta(hours=lake.settings.lake.file_guard_hours + 1)
    removed = maintain(lake, now=later).orphans_removed
    if removed != len(findings) - len(wrong):
        wrong.append(f"fsck found {len(findings) - len(wrong)} leftover files and maintenance removed {removed}")
    wrong += [finding.message for finding in fsck(lake, orphans_older_than=timedelta(0), deep=True)]
    return removed, wrong


def _law(lake: Lakehouse, job: str, books: Books, *, settled: bool = False) -> list[str]:
    """Every way in which the lake differs from what was acknowledged; `settled`: nothing may be under way."""
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
