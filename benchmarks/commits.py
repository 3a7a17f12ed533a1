"""How many small commits a second do several writers get through, and does any of them fail?

    python benchmarks/commits.py
    python benchmarks/commits.py --catalog postgresql://user:password@host/empty_database

So many processes commit small batches at once through `Lakehouse.commit`, each by turns to a table of its own and to
one that all share, where each replaces its own slices. Nothing is written by two transactions at a time for long: a
table has one writer, and a conflict over the catalog is tried again. Afterwards every row is counted. Without an
address, PostgreSQL is a server that the benchmark starts for itself and stops again, with fsync as on any real one.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retail_platform.contracts.table import Table

# The tests' own server and table, where this is started from a checkout.
sys.path.insert(0, str(Path(__file__).parents[1]))

FIRST_DAY = date(2017, 1, 1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--processes", type=int, default=4)
    arguments.add_argument("--commits", type=int, default=100, help="of each process")
    arguments.add_argument("--rows", type=int, default=500, help="of each commit")
    arguments.add_argument("--catalog", help="sqlite or a postgresql:// address; by default both, one after the other")
    arguments.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    arguments.add_argument("--writer", type=int, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.writer is not None:
        write(options.folder, options.catalog, options.writer, options.commits, options.rows)
        return
    print(f"{options.processes} processes, {options.commits} commits of {options.rows} rows each")
    print(f"{'catalog':<12}{'commits/s':>10}{'failed':>8}{'tried again':>13}{'median ms':>11}{'longest ms':>12}")
    for name, catalog in (("given", options.catalog),) if options.catalog else (("sqlite", "sqlite"), ("postgres", "")):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder, postgres(catalog) as address:
            race(name, Path(folder), address, options)


@contextmanager
def postgres(catalog: str) -> Iterator[str]:
    """The catalog's address; where there is none, that of an empty database of a server of our own."""
    if catalog:
        yield catalog
        return
    from retail_platform_tests.postgres import postgres_binaries, running_postgres

    binaries = postgres_binaries()
    if binaries is None:
        sys.exit("no PostgreSQL server found: install postgresql, or give --catalog")
    with running_postgres(binaries, fsync=True) as server:
        yield server.new_database("commits")


def race(name: str, home: Path, catalog: str, options: argparse.Namespace) -> None:
    from retail_platform.lakehouse import Lakehouse
    from retail_platform.settings import Settings

    command = [sys.executable, __file__, "--folder", str(home), "--catalog", catalog]
    command += ["--commits", str(options.commits), "--rows", str(options.rows)]
    lake = Lakehouse(Settings(home=home, catalog=catalog))
    lake.prepare()
    writers = [
        subprocess.Popen([*command, "--writer", str(number)], stdout=subprocess.PIPE, text=True)
        for number in range(options.processes)
    ]
    for writer in writers:
        assert writer.stdout is not None  # noqa: S101
        writer.stdout.readline()
    began = time.perf_counter()
    (home / "go").touch()
    outcomes = [json.loads(writer.communicate()[0]) for writer in writers]
    seconds = time.perf_counter() - began
    latencies = [latency for outcome in outcomes for latency in outcome["seconds"]]
    failures = [failure for outcome in outcomes for failure in outcome["failures"]]
    retried = sum(outcome["tried again"] for outcome in outcomes)
    print(
        f"{name:<12}{len(latencies) / seconds:>10.1f}{len(failures):>8}{retried:>13}"
        f"{statistics.median(latencies) * 1000:>11.0f}{max(latencies) * 1000:>12.0f}"
    )
    stored = sum(
        int(lake.query(f"SELECT count(*) FROM {table(number).name}").item())
        for number in (None, *range(options.processes))
    )
    if failures or stored != len(latencies) * options.rows:
        sys.exit(f"{stored} rows stored of {len(latencies) * options.rows} acknowledged; {failures[:3]}")


def table(writer: int | None) -> "Table":
    """The table of one writer, or the one that all share."""
    import polars as pl

    from retail_platform_tests.lakehouse.shop import make_table

    columns: dict[str, pl.DataType] = {
        "day": pl.Date(),
        "store": pl.String(),
        "item": pl.Int64(),
        "units": pl.Float64(),
    }
    return make_table("race.shared" if writer is None else f"race.writer_{writer}", columns)


def write(home: Path, catalog: str, writer: int, commits: int, rows: int) -> None:
    """Commit so many batches and print how long each took."""
    import polars as pl

    from retail_platform.lakehouse import LakeError, Lakehouse, Provenance, ReplaceSlices
    from retail_platform.settings import Settings

    lake = Lakehouse(Settings(home=home, catalog=catalog))
    own, shared = table(writer), table(None)
    by = Provenance(asset="benchmark", run_id=str(writer))
    outcome: dict[str, Any] = {"seconds": [], "failures": [], "tried again": 0}
    print("ready", flush=True)
    while not (home / "go").exists():
        time.sleep(0.005)
    for number in range(commits):
        day = FIRST_DAY + timedelta(days=writer * commits + number)
        batch = pl.DataFrame({"day": day, "store": f"S{writer}", "item": range(rows), "units": 1.0})
        target = shared if number % 2 else own
        started = time.perf_counter()
        try:
            commit = lake.commit([ReplaceSlices(target, target.arrange(batch), [{"day": day}])], by)
        except LakeError as error:
            outcome["failures"].append(str(error))
            continue
        outcome["seconds"].append(time.perf_counter() - started)
        outcome["tried again"] += commit.attempts - 1
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
