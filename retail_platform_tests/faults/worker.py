"""A process that writes to a lake or reads from it, and may kill itself at a named point.

`python -m retail_platform_tests.faults.worker` loads its libraries, says `ready`, takes one order as a line of JSON
and then says `ack NUMBER SECONDS` after each write that was acknowledged to it.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path

from retail_platform.lakehouse import Lakehouse, ReplaceSlices, ReplaceTable
from retail_platform.lakehouse.lakehouse import CommitStep
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.settings import Settings
from retail_platform_tests.faults.ground import settings_of
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, SALES_COLUMNS, STOCK, make_table, sales

WHOLE = make_table("shop.whole", SALES_COLUMNS)
ROWS = 20
"""Rows of a slice, a table or a landing file: half of one would show."""
DAYS = 7
"""Slices that are replaced in turn."""


@dataclass(frozen=True)
class Order:
    """What a worker is to do, beginning with write number `first`.

    With `kill_at` it kills itself there, in the commit that `kill_in_commit` counts from 1.
    """

    home: str
    catalog: str
    job: str
    first: int = 0
    last: int = 1_000_000
    kill_at: str = ""
    kill_in_commit: int = 1

    @property
    def settings(self) -> Settings:
        return settings_of(Path(self.home), self.catalog)

    def as_line(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Order":
        return cls(**json.loads(line))


def replace_slices(lake: Lakehouse, order: Order) -> Iterator[int]:
    """Replace the slice of one day after the other in two tables at once."""
    for number in _numbers(order):
        day = MONDAY + timedelta(days=number % DAYS)
        rows = sales(day, *[number] * ROWS)
        lake.commit([ReplaceSlices(table, rows, [{"day": day}]) for table in (SALES, STOCK)], BY)
        yield number


def replace_table(lake: Lakehouse, order: Order) -> Iterator[int]:
    for number in _numbers(order):
        lake.commit([ReplaceTable(WHOLE, sales(MONDAY, *[number] * ROWS))], BY)
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


def landing_text(number: int) -> str:
    header = "business_date,store_id,item_id,quantity,transaction_id,line_number\n"
    return header + "".join(f"2017-03-06,S1,I1,{number},T{number},{line}\n" for line in range(1, ROWS + 1))


JOBS: dict[str, Callable[[Lakehouse, Order], Iterator[int]]] = {
    "replace slices": replace_slices,
    "replace table": replace_table,
    "ingest": ingest,
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


def main() -> None:
    print("ready", flush=True)
    line = sys.stdin.readline()
    if not line:
        return
    order = Order.from_line(line)
    started = time.monotonic()
    for number in JOBS[order.job](Lakehouse(order.settings, on_step=killing(order)), order):
        print(f"ack {number} {time.monotonic() - started:.3f}", flush=True)


if __name__ == "__main__":
    main()
