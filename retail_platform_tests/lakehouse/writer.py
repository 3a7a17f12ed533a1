"""A process that writes to a lake; the tests start several, or kill one.

`python writer.py HOME CATALOG JOB NUMBER` waits for the file HOME/go, does its job as writer NUMBER and says
`ack N` on its standard output after each commit that was acknowledged.
"""

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import polars as pl

from retail_platform.lakehouse import Append, Lakehouse, ReplaceSlices
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, SALES_COLUMNS, STOCK, make_table, sales

OWN_SLICES = make_table("race.own_slices", SALES_COLUMNS)
SHARED_SLICE = make_table("race.shared_slice", SALES_COLUMNS)
APPENDED = make_table("race.appended", SALES_COLUMNS)
COMMITS = 3
ROWS = 20
"""Rows of a slice: half a slice would show."""


def race(lake: Lakehouse, writer: int) -> Iterator[int]:
    """Replace a slice that all writers share, replace slices of this writer alone, and append."""
    mine = sales(MONDAY, *[writer] * ROWS)
    lake.commit([ReplaceSlices(SHARED_SLICE, mine, [{"day": MONDAY}])], BY)
    yield 0
    for number in range(COMMITS):
        day = MONDAY + timedelta(days=10 * writer + number)
        lake.commit([ReplaceSlices(OWN_SLICES, sales(day, *[writer] * ROWS), [{"day": day}])], BY)
        row = pl.DataFrame([(day, f"W{writer}", number)], schema=APPENDED.polars_schema, orient="row")
        lake.commit([Append(APPENDED, row)], BY)
        yield number + 1


def loop(lake: Lakehouse, start: int) -> Iterator[int]:
    """Replace one slice after the other in two tables at once, until killed."""
    for number in range(start, start + 10_000):
        day = MONDAY + timedelta(days=number)
        rows = sales(day, *[number] * ROWS)
        lake.commit([ReplaceSlices(table, rows, [{"day": day}]) for table in (SALES, STOCK)], BY)
        yield number


JOBS = {"race": race, "loop": loop}


def main(home: Path, catalog: str, job: str, number: int) -> None:
    lake = Lakehouse(Settings(home=home, catalog=catalog))
    print("ready", flush=True)
    while not (home / "go").exists():
        time.sleep(0.005)
    for done in JOBS[job](lake, number):
        print(f"ack {done}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
