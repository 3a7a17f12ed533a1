"""A process that writes to a lake or reads from it, and may kill itself at a named point.

It is given one order, and says after each write that it was acknowledged. `python -m
retail_platform_tests.faults.worker ORDER`, with the order as JSON, is such a process of its own, for those who watch
its system calls.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

from retail_platform.lakehouse import Append, Lakehouse, ReplaceSlices, ReplaceTable
from retail_platform.lakehouse.lakehouse import CommitStep
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.settings import Settings
from retail_platform_tests.faults.ground import settings_of
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, SALES_COLUMNS, STOCK, make_table, sales

WHOLE = make_table("shop.whole", SALES_COLUMNS)
OWN = make_table("race.own_slices", SALES_COLUMNS)
SHARED = make_table("race.shared_slice", SALES_COLUMNS)
APPENDED = make_table("race.appended", SALES_COLUMNS)
ROWS = 20
"""Rows of a slice, a table or a landing file: half of one would show."""
DAYS = 7
"""Slices that are replaced in turn."""
AMOUNT = 1000
"""Units that two tables share, row by row."""
GUARD_SECONDS = 20
STOP = "stop"
"""The file in the home that ends readers and maintenance."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is to do: the writes from number `first` to `last`; `writer` tells it from others of its job.

    With `kill_at` it kills itself there, in the commit that `kill_in_commit` counts from 1.
    """

    home: str
    catalog: str
    job: str
    writer: int = 0
    first: int = 0
    last: int = 1_000_000
    kill_at: str = ""
    kill_in_commit: int = 1

    @property
    def settings(self) -> Settings:
        return settings_of(Path(self.home), self.catalog)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Acknowledged:
    """A write that was acknowledged, or a read that went well, so many seconds after the order."""

    number: int
    seconds: float


def replace_slices(lake: Lakehouse, order: Order) -> Iterator[int]:
    """Replace the slice of one day after the other in two tables at once."""
    for number in _numbers(order):
        day = MONDAY + timedelta(days=number % DAYS)
        rows = sales(day, *[number] * ROWS)
        lake.commit([ReplaceSlices(table, rows, [{"day": day}]) for table in (SALES, STOCK)], BY)
        yield number


def replace_table(lake: Lakehouse, order: Order) -> Iterator[int]:
    """Replace a table, in turn with a frame and with a stream, whose file is written before the transaction."""
    for number in _numbers(order):
        rows = sales(MONDAY, *[number] * ROWS)
        lake.commit([ReplaceTable(WHOLE, rows if number % 2 else rows.to_arrow().to_reader())], BY)
        yield number


def ingest(lake: Lakehouse, order: Order) -> Iterator[int]:
    """Take in one landing file after the other, each beside a copy of itself under another name."""
    for number in _numbers(order):
        folder = lake.settings.landing / "pos_sales"
        folder.mkdir(parents=True, exist_ok=True)
        for name in (f"{number:06}.csv", f"{number:06}-copy.csv"):
            unfinished = folder / f".{name}"
            unfinished.write_text(landing_text(number))
            unfinished.rename(folder / name)
        lake.prepare()
        ingest_feed(lake, "pos_sales", "run-1")
        yield number
        for file in folder.iterdir():
            file.unlink()


def run_until_clean(lake: Lakehouse, order: Order) -> Iterator[int]:
    """Take in one landing file after the other and clean it, in Dagster runs like those of `retail-platform run`."""
    import dagster as dg

    from retail_platform.orchestration.build import build_definitions
    from retail_platform.orchestration.runner import _run, instance_of
    from retail_platform.orchestration.sensors import clean_requests

    definitions = build_definitions(lake.settings, lake)
    folder = lake.settings.landing / "pos_sales"
    lake.prepare()
    with instance_of(lake.settings) as instance:
        for number in _numbers(order):
            file = folder / f"{number:06}.csv"
            if not file.exists():
                file.write_text(landing_text(number))
            raw = dg.AssetKey(["raw", "pos_sales"])
            _run(definitions, instance, "take in landing files", [raw], {}, lambda _: None)
            while requests := clean_requests(lake, instance):
                for request in requests:
                    _run(definitions, instance, "clean", request.asset_selection or [], request.tags, lambda _: None)
            yield number


def landing_text(number: int) -> str:
    header = "business_date,store_id,item_id,quantity,transaction_id,line_number\n"
    return header + "".join(f"2017-03-06,S1,I1,{number},T{number},{line}\n" for line in range(1, ROWS + 1))


def race(lake: Lakehouse, order: Order) -> Iterator[int]:
    """Replace a slice that all writers share, replace a slice that is this writer's alone, and append."""
    for number in _numbers(order):
        lake.commit([ReplaceSlices(SHARED, sales(MONDAY, *[order.writer] * ROWS), [{"day": MONDAY}])], BY)
        day = own_day(order.writer, number)
        lake.commit([ReplaceSlices(OWN, sales(day, *[order.writer] * ROWS), [{"day": day}])], BY)
        lake.commit([Append(APPENDED, sales(day, order.writer))], BY)
        yield number


def own_day(writer: int, number: int) -> date:
    return MONDAY + timedelta(days=1000 * writer + number)


def transfer(lake: Lakehouse, order: Order) -> Iterator[int]:
    """Share an amount out anew between two tables, day by day: in every snapshot the two hold all of it, or none."""
    for number in _numbers(order):
        day = own_day(order.writer, number % DAYS)
        share = number % AMOUNT
        commit = [
            ReplaceSlices(SALES, sales(day, *[share] * ROWS), [{"day": day}]),
            ReplaceSlices(STOCK, sales(day, *[AMOUNT - share] * ROWS), [{"day": day}]),
        ]
        lake.commit(commit, BY)
        yield number


TORN = f"""
    SELECT day, count(*) AS rows, sum(units)::BIGINT AS units
    FROM (FROM shop.sales UNION ALL FROM shop.stock) GROUP BY day
    HAVING count(*) <> {2 * ROWS} OR sum(units) <> {AMOUNT * ROWS}
"""
"""Days of which a reader sees a part of a commit."""


def read(lake: Lakehouse, _: Order) -> Iterator[int]:
    """Read, in one statement and as a stream, until told to stop."""
    for number in count():
        if (lake.settings.home / STOP).exists():
            return
        torn = lake.query(TORN).rows()
        if torn:
            raise AssertionError(f"a reader saw a part of a commit: {torn}")
        with lake.read_batches("shop.sales", batch_rows=ROWS) as batches:
            rows = 0
            for batch in batches:
                rows += batch.num_rows
                time.sleep(0.001)
        if rows % ROWS:
            raise AssertionError(f"a stream gave {rows} rows of slices of {ROWS}")
        yield number


def maintain_often(lake: Lakehouse, _: Order) -> Iterator[int]:
    """Maintain until told to stop, by a clock so far ahead that every snapshot but the newest expires, and with a
    guard that keeps a file only for `GUARD_SECONDS` after its last use.
    """
    ahead = timedelta(days=lake.settings.lake.snapshot_days + 1)
    guard = (ahead.total_seconds() + GUARD_SECONDS) / 3600
    limits = lake.settings.lake.model_copy(update={"file_guard_hours": guard})
    lake = Lakehouse(lake.settings.model_copy(update={"lake": limits}))
    for number in count():
        if (lake.settings.home / STOP).exists():
            return
        maintain(lake, now=datetime.now(UTC) + ahead)
        yield number


JOBS: dict[str, Callable[[Lakehouse, Order], Iterator[int]]] = {
    "replace slices": replace_slices,
    "replace table": replace_table,
    "ingest": ingest,
}
"""What a killed writer was at."""

OTHER_JOBS: dict[str, Callable[[Lakehouse, Order], Iterator[int]]] = {
    "run": run_until_clean,
    "race": race,
    "transfer": transfer,
    "read": read,
    "maintain": maintain_often,
}


def _numbers(order: Order) -> Iterator[int]:
    return iter(range(order.first, order.last + 1))


def killing(order: Order) -> Callable[[CommitStep], None]:
    """Kill this process, as `kill -9` does, when the commit asked for reaches the point asked for."""
    commits = count(1)

    def on_step(step: CommitStep) -> None:
        if step == order.kill_at and next(commits) == order.kill_in_commit:
            os.kill(os.getpid(), signal.SIGKILL)

    return on_step


def carry_out(order: Order) -> Iterator[Acknowledged]:
    started = time.monotonic()
    lake = Lakehouse(order.settings, on_step=killing(order))
    for number in (JOBS | OTHER_JOBS)[order.job](lake, order):
        yield Acknowledged(number, time.monotonic() - started)


def obey(order: Order, says: "Connection[Acknowledged, None]", errors: str) -> None:
    """What a forked worker does; its words go to the file `errors`."""
    end_with_parent()
    file = os.open(errors, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    for acknowledged in carry_out(order):
        says.send(acknowledged)


def end_with_parent() -> None:
    """Be killed when the process that started this one ends, in whatever way."""
    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    for done in carry_out(Order(**json.loads(sys.argv[1]))):
        print(done.number, flush=True)
