"""How much slower is a lakehouse commit than DuckDB's plain Parquet copy of the same rows?

`python benchmarks/lakehouse_write.py --rows 48000000`

Both write the same five columns with zstd, from the same source, with the same number of threads. The commit
also creates the catalog entry, checks the columns, forces everything to disk and can be rolled back; the copy
does none of it. Each measurement is a process of its own, the two take turns, and medians are shown.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retail_platform.contracts.table import Table

SOURCES = ("parquet", "polars")
WAYS = ("copy", "commit")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=48_000_000)
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    arguments.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        source, way = options.measure
        print(json.dumps(measure(source, way, options.folder, options.threads)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        compare(Path(folder), options.rows, options.repeat, options.threads)


def compare(folder: Path, rows: int, repeat: int, threads: int) -> None:
    make_rows(folder / "source.parquet", rows)
    print(f"{rows:,} rows, {threads} threads, median of {repeat} alternating runs")
    print(f"{'source':<10}{'copy s':>10}{'commit s':>10}{'ratio':>8}{'copy MB':>10}{'commit MB':>11}")
    for source in SOURCES:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(repeat):
            for way in WAYS:
                runs[way].append(in_own_process(folder, source, way, threads))
        seconds = {way: statistics.median(run["seconds"] for run in runs[way]) for way in WAYS}
        memory = {way: statistics.median(run["megabytes"] for run in runs[way]) for way in WAYS}
        print(
            f"{source:<10}{seconds['copy']:>10.2f}{seconds['commit']:>10.2f}{seconds['commit'] / seconds['copy']:>8.2f}"
            f"{memory['copy']:>10.0f}{memory['commit']:>11.0f}"
        )


def in_own_process(folder: Path, source: str, way: str, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--folder", str(folder), "--threads", str(threads), "--measure", source, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(source: str, way: str, folder: Path, threads: int) -> dict[str, float]:
    rows = folder / "source.parquet"
    with tempfile.TemporaryDirectory(dir=folder) as target:
        seconds = (copy if way == "copy" else commit)(rows, source, Path(target), threads)
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def copy(rows: Path, source: str, target: Path, threads: int) -> float:
    """DuckDB writes one Parquet file, in any order of rows, as a lake table has none either."""
    import duckdb
    import polars as pl
    import pyarrow as pa

    def batches(lazy: pl.LazyFrame) -> Iterator[pa.RecordBatch]:
        for frame in lazy.collect_batches():
            yield from frame.to_arrow().to_batches()

    began = time.perf_counter()
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": threads,
        "memory_limit": "4GB",
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=config) as connection:
        relation = f"read_parquet('{rows}')"
        if source == "polars":
            lazy = pl.scan_parquet(rows)
            schema = lazy.collect_schema().to_frame().to_arrow().schema
            connection.register("incoming", pa.RecordBatchReader.from_batches(schema, batches(lazy)))
            relation = "incoming"
        connection.execute(f"COPY (FROM {relation}) TO '{target / 'copy.parquet'}' (FORMAT parquet, COMPRESSION zstd)")
    return time.perf_counter() - began


def commit(rows: Path, source: str, target: Path, threads: int) -> float:
    """The lakehouse replaces a table, in a lake that has every table of the platform already."""
    import polars as pl

    from retail_platform.lakehouse import Lakehouse, Provenance, Query, ReplaceTable
    from retail_platform.settings import LakeSettings, Settings

    lake = Lakehouse(Settings(home=target, lake=LakeSettings(threads=threads, memory_limit="4GB")))
    lake.prepare()
    table = daily_sales()
    began = time.perf_counter()
    incoming = pl.scan_parquet(rows) if source == "polars" else Query(f"FROM read_parquet('{rows}')")
    lake.commit([ReplaceTable(table, incoming)], Provenance("benchmark/daily_sales", "benchmark"))
    return time.perf_counter() - began


def daily_sales() -> "Table":
    import pandera.polars as pa
    import polars as pl

    from retail_platform.contracts.table import Table, column

    class DailySales(pa.DataFrameModel):
        date: pl.Date = column("Day")
        store_id: pl.String = column("Store")
        item_id: pl.String = column("Item")
        quantity: pl.Int32 = column("Units")
        amount: pl.Float64 = column("Amount paid")

    grain = ("date", "store_id", "item_id")
    return Table("benchmark.daily_sales", DailySales, grain, "team:data-engineering", "", None, ())


def make_rows(file: Path, rows: int) -> None:
    """Daily sales of 10 stores and 3,000 items, sorted by day, with small whole quantities: as a retailer has them."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(
            f"""
            COPY (
                SELECT DATE '2011-01-29' + (i // 30000)::INTEGER AS date, 'S' || (i // 3000 % 10) AS store_id,
                       'ITEM_' || lpad((i % 3000)::VARCHAR, 5, '0') AS item_id,
                       (hash(i) % 7)::INTEGER AS quantity,
                       round((hash(i) % 7) * (1 + hash(i % 3000) % 900 / 100.0), 2)::DOUBLE AS amount
                FROM range({rows}) AS numbers(i)
            ) TO '{file}' (FORMAT parquet, COMPRESSION zstd)
            """
        )


if __name__ == "__main__":
    main()
