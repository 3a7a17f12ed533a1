"""What does one more day of sales cost after five years of history, and what after half a year?

    python benchmarks/one_day.py

Two homes with the same retailer, whose history differs in its length only: a landing file of receipts for every day,
taken in and cleaned by the platform's own runs, and as many old commits on record as a daily operation leaves. Then
the same further days arrive one by one in both homes by turns. For each, what the daemon does is timed, in one process
that is warm: look for files, take the new one in, find out what is to be cleaned, clean it with all checks, and find
that nothing is left to do.
"""

import argparse
import statistics
import tempfile
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from ingest import item_ids, sales, store_ids

if TYPE_CHECKING:
    from retail_platform.lakehouse import Lakehouse
    from retail_platform.settings import Settings

FIRST_NEW_DAY = date(2026, 1, 1)
HISTORIES = {"half a year": 182, "five years": 1826}
COMMITS_A_DAY = 10
STEPS = ("look", "take in", "find days", "clean", "look again")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=15_000, help="of each day")
    arguments.add_argument("--days", type=int, default=9, help="that arrive one by one; the first warms up")
    arguments.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compare(Path(folder), options.rows, options.days)


def compare(folder: Path, rows: int, days: int) -> None:
    homes = {name: home_with_history(folder / name.replace(" ", "-"), rows, HISTORIES[name]) for name in HISTORIES}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in homes}
    for number in range(days):
        for name, settings in homes.items():
            seconds[name].append(add_day(settings, FIRST_NEW_DAY + timedelta(days=number), rows))
    print(f"one more day of {rows:,} rows, median of {days - 1}")
    print(f"{'':<14}{'seconds':>9}" + "".join(f"{step:>12}" for step in STEPS))
    medians = {}
    for name, of_days in seconds.items():
        medians[name] = statistics.median(sum(day.values()) for day in of_days[1:])
        parts = "".join(f"{statistics.median(day[step] for day in of_days[1:]):>12.2f}" for step in STEPS)
        print(f"{name:<14}{medians[name]:>9.2f}{parts}")
    print(f"{medians['five years'] / medians['half a year']:.2f} times")


def home_with_history(home: Path, rows: int, days: int) -> "Settings":
    from retail_platform.orchestration.resources import open_lakehouse
    from retail_platform.orchestration.runner import materialize, prepare_home
    from retail_platform.settings import IntakeSettings, LakeSettings, Settings

    first = FIRST_NEW_DAY - timedelta(days=days)
    # A file just written would be watched for a while, which costs the same in both.
    intake, lake = IntakeSettings(quiet_seconds=0), LakeSettings(threads=2)
    settings = Settings(home=home, start_date=first, intake=intake, lake=lake)
    prepare_home(settings)
    pl.DataFrame({"item_id": item_ids(), "category": "FOODS"}).write_csv(settings.landing / "items" / "items.csv")
    stores = pl.DataFrame({"store_id": store_ids(), "time_zone": "America/New_York"})
    stores.write_csv(settings.landing / "stores" / "stores.csv")
    for number in range(days):
        land(settings, first + timedelta(days=number), rows)
    lakehouse = open_lakehouse(settings)
    lakehouse.prepare()
    began = time.perf_counter()
    materialize(lakehouse, "group:raw", None, None, lambda _: None)
    whole_tables = "group:clean and not key:clean/sales and not key:clean/inventory"
    materialize(lakehouse, whole_tables, None, None, lambda _: None)
    span = (first, FIRST_NEW_DAY - timedelta(days=1))
    materialize(lakehouse, "key:clean/sales or key:clean/inventory", span, None, lambda _: None)
    record_commits(lakehouse, days * COMMITS_A_DAY)
    files = len(list(settings.lake_data.rglob("*.parquet")))
    print(f"{days} days of history in {time.perf_counter() - began:.0f} s, {files} files in the lake", flush=True)
    return settings


def record_commits(lakehouse: "Lakehouse", count: int) -> None:
    """Commits whose snapshots have expired, as maintenance writes them down."""
    from retail_platform.contracts import TABLES
    from retail_platform.lakehouse import Append, Provenance

    table = TABLES["governance.commits"]
    by = Provenance(asset="clean.sales", run_id="an earlier one", code_version="1", partition="2020-01-01")
    # Snapshots before the first one, so that they are nobody else's.
    rows = pl.DataFrame({"snapshot_id": range(-count, 0)}).select(
        pl.col("snapshot_id"),
        pl.lit(datetime(2020, 1, 1)).cast(pl.Datetime("us")).alias("committed_at"),  # noqa: DTZ001
        pl.lit(by.run_id).alias("run_id"),
        pl.lit(by.message()).alias("message"),
        pl.lit(by.as_json()).alias("provenance"),
        pl.lit("{}").alias("changes"),
    )
    lakehouse.commit([Append(table, table.arrange(rows))], by)


def land(settings: "Settings", day: date, rows: int) -> None:
    number = (day - FIRST_NEW_DAY).days + HISTORIES["five years"]
    of_day = sales(number, 1, "receipts").sample(rows, seed=number, shuffle=True)
    of_day = of_day.with_columns(pl.lit(day).alias("business_date"))
    of_day.write_csv(settings.landing / "pos_sales" / f"sales_{day}.csv")


def add_day(settings: "Settings", day: date, rows: int) -> dict[str, float]:
    """Seconds of each step from the landed file to the clean day."""
    from retail_platform.orchestration.ingestion import waiting_files
    from retail_platform.orchestration.resources import open_lakehouse
    from retail_platform.orchestration.runner import instance_of, materialize
    from retail_platform.orchestration.sensors import clean_requests

    land(settings, day, rows)
    lakehouse = open_lakehouse(settings)
    clock = [time.perf_counter()]
    assert waiting_files(lakehouse)["pos_sales"]  # noqa: S101
    clock.append(time.perf_counter())
    materialize(open_lakehouse(settings), "key:raw/pos_sales", None, None, lambda _: None)
    clock.append(time.perf_counter())
    with instance_of(settings) as instance:
        (request,) = clean_requests(lakehouse, instance)
    clock.append(time.perf_counter())
    first, last = (date.fromisoformat(request.tags[f"dagster/asset_partition_range_{end}"]) for end in ("start", "end"))
    assert (first, last) == (day, day)  # noqa: S101
    materialize(open_lakehouse(settings), "key:clean/sales", (first, last), None, lambda _: None)
    clock.append(time.perf_counter())
    with instance_of(settings) as instance:
        assert not clean_requests(lakehouse, instance)  # noqa: S101
    clock.append(time.perf_counter())
    return {step: after - before for step, before, after in zip(STEPS, clock, clock[1:], strict=False)}


if __name__ == "__main__":
    main()
