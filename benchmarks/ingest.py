"""How fast do landed sales become `clean.sales`, and what do ledger, contract, quarantine and checks cost?

    python benchmarks/ingest.py --rows 48000000
    python benchmarks/ingest.py --rows 48000000 --format csv --lines receipts

Takes in simulated point-of-sale files and cleans them by the platform's own assets with all their checks, as the
command line does; beside it, on the same files, a plain DuckDB script that only casts and writes Parquet. Both get two
threads. One row in a thousand or so is broken, repeated or corrected by a later file. Each part is a process of its
own; memory is that of the process and its children together.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

STORES, ITEMS = 10, 3_049
FIRST_DAY = date(2011, 1, 29)
DAYS_PER_FILE = 91
TYPES = {
    "business_date": "DATE",
    "store_id": "VARCHAR",
    "item_id": "VARCHAR",
    "quantity": "DOUBLE",
    "sales_amount": "DOUBLE",
    "discount_amount": "DOUBLE",
    "transaction_id": "VARCHAR",
    "line_number": "BIGINT",
    "sold_at": "TIMESTAMP",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=48_000_000)
    arguments.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    arguments.add_argument("--lines", choices=("totals", "receipts"), default="totals")
    arguments.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    arguments.add_argument("--part", choices=("platform", "plain"), help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.part:
        print(json.dumps(platform(options.folder) if options.part == "platform" else plain(options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compare(Path(folder), options.rows, options.format, options.lines)


def compare(folder: Path, rows: int, file_format: str, lines: str) -> None:
    landed = land(folder / "landing", rows, file_format, lines)
    size = sum(file.stat().st_size for file in (folder / "landing" / "pos_sales").iterdir()) / 1e6
    print(f"{landed:,} rows of {lines} in {file_format}, {size:,.0f} MB", flush=True)
    results = {part: in_own_process(folder, part) for part in ("plain", "platform")}
    print(f"{'':<12}{'seconds':>9}{'rows/s':>12}{'CPU s':>9}{'peak MB':>9}")
    for part, result in results.items():
        rate = landed / result["seconds"]
        print(f"{part:<12}{result['seconds']:>9.1f}{rate:>12,.0f}{result['cpu']:>9.1f}{result['peak']:>9,.0f}")
    print(f"{results['platform']['seconds'] / results['plain']['seconds']:.2f} times the plain script's time")
    for name, (seconds, cpu) in results["platform"]["steps"].items():
        print(f"  {name:<24}{seconds:>7.1f} s {landed / seconds:>12,.0f} rows/s{cpu:>9.1f} CPU s")
    print("  " + ", ".join(f"{count:,} {name}" for name, count in results["platform"]["rows"].items()))


def in_own_process(folder: Path, part: str) -> dict[str, Any]:
    import psutil

    command = [sys.executable, __file__, "--folder", str(folder), "--part", part]
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.1):
            try:
                family = [process, *process.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family))
            except psutil.NoSuchProcess:
                continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    stop.set()
    watcher.join()
    if process.returncode:
        sys.exit(process.returncode)
    return {**json.loads(output.splitlines()[-1]), "peak": peak / 1e6}


def platform(folder: Path) -> dict[str, Any]:
    """What `retail-platform ingest` does up to `clean.sales`: the same assets, with their checks."""
    from retail_platform.orchestration.resources import open_lakehouse
    from retail_platform.orchestration.runner import materialize
    from retail_platform.settings import LakeSettings, Settings

    settings = Settings(home=folder, lake=LakeSettings(threads=2))
    lakehouse = open_lakehouse(settings)
    lakehouse.prepare()
    steps = {}
    began = time.perf_counter()
    for name, selection in (
        ("masters", "key:raw/items or key:raw/stores or key:clean/items or key:clean/stores"),
        ("landing files to raw", "key:raw/pos_sales"),
        ("raw to clean", "key:clean/sales"),
    ):
        started, before = time.perf_counter(), cpu_seconds()
        days = None
        if name == "raw to clean":
            ledger = lakehouse.read("raw.ingested_files", where="feed = 'pos_sales'")
            days = ledger.select(pl.col("first_date").min(), pl.col("last_date").max()).row(0)
        materialize(lakehouse, selection, days, None, lambda _: None)
        steps[name] = time.perf_counter() - started, cpu_seconds() - before
    seconds = time.perf_counter() - began
    rows = {
        table.split(".")[1]: int(lakehouse.query(f"SELECT count(*) FROM {table}").item())
        for table in ("clean.sales", "quarantine.rejected_rows", "quarantine.duplicate_rows")
    }
    return {"seconds": seconds, "cpu": sum(cpu for _, cpu in steps.values()), "steps": steps, "rows": rows}


def plain(folder: Path) -> dict[str, Any]:
    """Cast every column and write Parquet; a value that cannot be cast becomes null without a word."""
    import duckdb

    began, before = time.perf_counter(), cpu_seconds()
    with duckdb.connect(config={"threads": 2, "memory_limit": "4GB", "preserve_insertion_order": False}) as connection:
        place = folder / "landing" / "pos_sales"
        source = f"read_parquet('{place}/*.parquet')"
        if any(place.glob("*.csv")):
            source = f"read_csv('{place}/*.csv', header=true, all_varchar=true)"
        columns = [name for name, *_ in connection.execute(f"DESCRIBE FROM {source}").fetchall()]
        casts = ", ".join(f"TRY_CAST({name} AS {TYPES[name]}) AS {name}" for name in columns)
        target = folder / "plain.parquet"
        connection.execute(f"COPY (SELECT {casts} FROM {source}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
    return {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - before}


def cpu_seconds() -> float:
    """What this process and its children have used of the processors; other work does not change it much."""
    import psutil

    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(sum(process.cpu_times()[:4]) for process in family)


def land(landing: Path, rows: int, file_format: str, lines: str) -> int:
    """Files of a quarter each; the number of their rows. The last file corrects the first day."""
    for feed in ("pos_sales", "items", "stores"):
        (landing / feed).mkdir(parents=True)
    pl.DataFrame({"item_id": item_ids(), "category": ["FOODS"] * ITEMS}).write_csv(landing / "items" / "items.csv")
    stores = {"store_id": store_ids(), "time_zone": ["America/New_York"] * STORES}
    pl.DataFrame(stores).write_csv(landing / "stores" / "stores.csv")
    days = max(1, round(rows / (STORES * ITEMS)))
    landed = 0
    for number, first in enumerate(range(0, days, DAYS_PER_FILE)):
        landed += write(landing, f"{number:04}", sales(first, min(DAYS_PER_FILE, days - first), lines), file_format)
    correction = sales(0, 1, lines).with_columns(pl.col("quantity") + 1)
    return landed + write(landing, "correction", correction, file_format)


def write(landing: Path, name: str, frame: pl.DataFrame, file_format: str) -> int:
    file = landing / "pos_sales" / f"sales_{name}.{file_format}"
    if file_format == "csv":
        frame.write_csv(file)
    else:
        frame.write_parquet(file, compression="zstd")
    return frame.height


def sales(first: int, days: int, lines: str) -> pl.DataFrame:
    """So many days from the `first` one on, each with a line for every store and item, and some flaws."""
    random = np.random.default_rng(first)
    per_day, rows = STORES * ITEMS, STORES * ITEMS * days
    number = np.arange(rows)
    quantity = random.poisson(1.3, rows).astype(float)
    price = 0.5 + (np.arange(ITEMS) * 37 % 1500) / 100
    item = number % ITEMS
    frame = pl.DataFrame(
        {
            "business_date": pl.Series([FIRST_DAY + timedelta(days=first + day) for day in range(days)]).gather(
                number // per_day
            ),
            "store_id": store_ids().gather(number // ITEMS % STORES),
            "item_id": item_ids().gather(item),
            "quantity": quantity,
            "sales_amount": (quantity * price[item]).round(2),
        }
    )
    if lines == "receipts":
        receipt, second = number // 7, random.integers(8 * 3600, 20 * 3600, rows)
        frame = frame.with_columns(
            pl.Series("discount_amount", (quantity * price[item] * (number % 11 == 0) * 0.1).round(2)),
            (pl.col("store_id") + "-" + pl.Series(first * per_day + receipt).cast(pl.String)).alias("transaction_id"),
            pl.Series("line_number", number % 7 + 1),
            (
                pl.col("business_date").cast(pl.Datetime("us")) + pl.Series(second * 1_000_000).cast(pl.Duration("us"))
            ).alias("sold_at"),
        )
    frame = frame.with_columns(
        pl.when(pl.Series(number % 5_003 == 7)).then(None).otherwise("item_id").alias("item_id"),
        pl.when(pl.Series(number % 7_001 == 8)).then(2e9).otherwise("quantity").alias("quantity"),
        pl.when(pl.Series(number % 9_001 == 9)).then(pl.lit("S99")).otherwise("store_id").alias("store_id"),
    )
    # The till sent some of its lines twice.
    return pl.concat([frame, frame[::2_003]])


def store_ids() -> pl.Series:
    return pl.Series([f"S{number:02}" for number in range(1, STORES + 1)])


def item_ids() -> pl.Series:
    return pl.Series([f"HOBBIES_1_{number:04}" for number in range(1, ITEMS + 1)])


if __name__ == "__main__":
    main()
