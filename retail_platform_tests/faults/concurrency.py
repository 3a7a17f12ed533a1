"""Several processes at one lake: writers of one table, and writers, readers and maintenance together.

The law: nothing is lost, nothing is doubled, no reader and no writer fails, and a reader sees whole commits only.
"""

from datetime import timedelta

from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.fsck import fsck
from retail_platform_tests.faults.ground import Ground, Outcome, ask
from retail_platform_tests.faults.worker import ROWS, STOP, TORN, Order, own_day
from retail_platform_tests.faults.workers import Ended, workers

WRITERS = 4
READERS = 4


def race(ground: Ground, rounds: int) -> Outcome:
    """Four writers begin together in a home without a lake, and make `rounds` rounds of three commits each."""
    with ground.home() as settings, workers() as begin:
        where = {"home": str(settings.home), "catalog": settings.catalog}
        orders = [Order(**where, job="race", writer=w, first=0, last=rounds - 1) for w in range(WRITERS)]
        ended = [worker.end() for worker in [begin(order) for order in orders]]
        violations = _all_acknowledged(ended, rounds)
        lake = Lakehouse(settings)
        violations += _slices_of_one(lake, "race.shared_slice", {own_day(0, 0): set(range(WRITERS))})
        days = {own_day(w, number): {w} for w in range(WRITERS) for number in range(rounds)}
        violations += _slices_of_one(lake, "race.own_slices", days)
        appended = sorted(ask(lake, "SELECT day, units FROM race.appended"))
        if appended != sorted((day, w) for day, (w,) in ((day, tuple(ws)) for day, ws in days.items())):
            violations.append(f"appended are {len(appended)} rows, acknowledged {len(days)}, and they differ")
        violations += _sound(lake)
    return Outcome(rounds, f"{3 * rounds * WRITERS} commits of {WRITERS} writers, none failed", tuple(violations))


def writers_readers_and_maintenance(ground: Ground, rounds: int) -> Outcome:
    """Two writers make `rounds` commits each, while four readers read and maintenance goes on and on."""
    with ground.home() as settings, workers() as begin:

        def order(job: str, writer: int = 0) -> Order:
            return Order(
                home=str(settings.home), catalog=settings.catalog, job=job, writer=writer, first=0, last=rounds - 1
            )

        first_writer = begin(order("transfer", 0))
        first_writer.await_acknowledged(1)
        second_writer = begin(order("transfer", 1))
        beside = [begin(order("read")) for _ in range(READERS)] + [begin(order("maintain"))]
        writers = [first_writer.end(), second_writer.end()]
        for worker in beside:
            worker.await_acknowledged(1)
        (settings.home / STOP).touch()
        *readers, maintenance = [worker.end() for worker in beside]
        lake = Lakehouse(settings)
        violations = _all_acknowledged(writers, rounds)
        violations += [ended.errors[-800:] for ended in [*readers, maintenance] if ended.code]
        violations += [f"a day is torn: {torn}" for torn in ask(lake, TORN)]
        violations += _sound(lake)
        facts = ask(
            lake, "SELECT count(*), sum(files_compacted)::BIGINT, sum(files_removed)::BIGINT FROM storage.maintenance"
        )
    reads = sum(len(ended.acknowledged) for ended in readers)
    runs, compacted, removed = facts[0]
    seen = (
        f"{2 * rounds} commits, {2 * reads:,} reads of {READERS} readers, {runs} times maintained: {compacted} files "
        f"merged, {removed} removed"
    )
    return Outcome(rounds, seen, tuple(violations))


def _all_acknowledged(writers: list[Ended], rounds: int) -> list[str]:
    return [
        f"writer {number} ended with {ended.code} after {len(ended.acknowledged)} of {rounds}: {ended.errors[-800:]}"
        for number, ended in enumerate(writers)
        if ended.code or len(ended.acknowledged) != rounds
    ]


def _slices_of_one(lake: Lakehouse, table: str, expected: dict[object, set[int]]) -> list[str]:
    """Each day holds the whole slice of exactly one of the writers that it may be of, and no other day is there."""
    found = {
        row[0]: row[1:] for row in ask(lake, f"SELECT day, count(*), min(units), max(units) FROM {table} GROUP BY 1")
    }
    wrong = [
        f"{table} of {day} holds {found.get(day)}, expected {ROWS} rows of one of the writers {writers}"
        for day, writers in expected.items()
        if found.get(day) not in {(ROWS, writer, writer) for writer in writers}
    ]
    return [*wrong, *(f"{table} holds {day}, which nobody wrote" for day in found if day not in expected)]


def _sound(lake: Lakehouse) -> list[str]:
    return [finding.message for finding in fsck(lake, orphans_older_than=timedelta(0), deep=True)]
