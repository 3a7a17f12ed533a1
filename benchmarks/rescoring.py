"""How long after one new day of sales do 30,490 series have new forecasts, 28 days with quantiles?

    python benchmarks/rescoring.py

The lake holds the features of a simulated panel of the size of M5, ten stores and about 48 million rows, in shards, and
for each shard a model in force: trained once with the default settings, on one store. Then one more day of sales is
known. Timed are the features of each shard, computed anew with the new day and written, and the forecast of each shard
by the platform's own runs, from what it reads of the lake to the published series and nodes with their blocking checks.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from features import LAST_DAY, write_store

if TYPE_CHECKING:
    from retail_platform.lakehouse import Lakehouse
    from retail_platform.settings import Settings

HORIZON = 28
NEW_DAY = LAST_DAY - timedelta(days=HORIZON)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--stores", type=int, default=10)
    arguments.add_argument("--items", type=int, default=3_049)
    arguments.add_argument("--shards", type=int, default=4)
    arguments.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = sum(write_store(Path(folder), number, options.items) for number in range(options.stores))
        print(f"{rows:,} rows of {options.stores * options.items:,} series", flush=True)
        rescore(Path(folder), options.shards)


def rescore(folder: Path, shards: int) -> None:
    from retail_platform.orchestration.resources import open_lakehouse
    from retail_platform.orchestration.runner import materialize, prepare_home
    from retail_platform.settings import ForecastSettings, Settings

    settings = Settings(home=folder / "home", forecast=ForecastSettings(shards=shards))
    prepare_home(settings)
    lakehouse = open_lakehouse(settings)
    lakehouse.prepare()
    yesterday = NEW_DAY - timedelta(days=1)
    for shard, files in stores_of_shards(folder, shards):
        write_features(lakehouse, shard, files, yesterday)
    register(settings, lakehouse, min(folder.glob("store_*.parquet")), yesterday)
    print("the lake is ready", flush=True)

    began = time.perf_counter()
    for shard, files in stores_of_shards(folder, shards):
        write_features(lakehouse, shard, files, NEW_DAY)
    features = time.perf_counter() - began
    began = time.perf_counter()
    for shard, _ in stores_of_shards(folder, shards):
        materialize(lakehouse, 'key:"forecast/demand"', None, shard, lambda _: None)
    forecasts = time.perf_counter() - began
    found = lakehouse.query(
        "SELECT count(DISTINCT (store_id, item_id)) AS series, count(*) AS rows, string_agg(DISTINCT model) AS models "
        "FROM forecast.demand WHERE forecast_origin = ?",
        [NEW_DAY],
    ).row(0, named=True)
    print(f"{found['series']:,} series, {found['rows']:,} rows, by {found['models']}")
    print(f"features of all shards, computed anew and written: {features:.0f} s")
    print(f"forecasts of all shards, published and checked: {forecasts:.0f} s")
    if found["models"] != "lightgbm":
        sys.exit("the forecasts are not those of the model")


def stores_of_shards(folder: Path, shards: int) -> Iterator[tuple[str, list[Path]]]:
    from retail_platform.features.shards import shard_of

    files = {f"S{int(file.stem.removeprefix('store_')):02}": file for file in sorted(folder.glob("store_*.parquet"))}
    shard = shard_of(files, shards)
    for name in sorted(set(shard.values())):
        yield name, [file for store, file in files.items() if shard[store] == name]


def panel_known_to(file: Path, shard: str, last: date) -> pl.DataFrame:
    """One store's part of features.demand, of which the sales to a day are known."""
    ahead = last + timedelta(days=HORIZON)
    return (
        pl.read_parquet(file)
        .filter(pl.col("date") <= ahead)
        .with_columns(shard=pl.lit(shard), units=pl.when(pl.col("date") <= last).then("units"))
    )


def write_features(lakehouse: "Lakehouse", shard: str, files: list[Path], last: date) -> None:
    from retail_platform.contracts import TABLES
    from retail_platform.features.history import build_history
    from retail_platform.lakehouse import Provenance, ReplaceSlices

    demand = pl.concat(panel_known_to(file, shard, last) for file in files)
    for name, frame in (("features.demand", demand), ("features.demand_history", build_history(demand))):
        table = TABLES[name]
        rows = table.validate(frame.select(table.polars_schema.names()))
        lakehouse.commit([ReplaceSlices(table, rows, [{"shard": shard}])], Provenance(name, "benchmark", "", shard))


def register(settings: "Settings", lakehouse: "Lakehouse", file: Path, last: date) -> None:
    """Train a model on one store and put it in force for every shard."""
    from retail_platform.contracts import TABLES
    from retail_platform.features.history import build_history
    from retail_platform.features.shards import shard_names
    from retail_platform.forecasting.training import Gate, train
    from retail_platform.lakehouse import Append, Provenance
    from retail_platform.lakehouse.model_store import save_model
    from retail_platform.orchestration.reproduction import manifest_of

    demand = panel_known_to(file, "all", last)
    errors = pl.DataFrame(schema=TABLES["model.backtest_forecasts"].polars_schema)
    model = train(demand, build_history(demand), errors, settings.forecast)
    gate = Gate(passed=True, wape=0.5, naive_wape=1.0, text="put in force by a benchmark")
    registry = TABLES["model.registry"]
    for shard in shard_names(settings.forecast.shards):
        snapshot, version = lakehouse.snapshot_id(), f"{last}-{shard}"
        manifest = manifest_of(
            model,
            demand,
            settings,
            parameters=settings.forecast,
            version=version,
            shard=shard,
            backtest_id=version,
            gate=gate,
            lake_snapshot=snapshot,
            run_id="benchmark",
        )
        row = {
            "model_version": version,
            "shard": shard,
            "stage": "champion",
            "changed_at": datetime.now(UTC).replace(tzinfo=None),
            "changed_by": "benchmark",
            "reason": gate.text,
            "trained_until": last,
            "folder": version,
            "manifest_sha256": save_model(settings.models, version, model.files(), manifest),
            "lake_snapshot": snapshot,
            "wape": gate.wape,
            "naive_wape": gate.naive_wape,
        }
        rows = registry.validate(pl.DataFrame([row], schema=registry.polars_schema))
        lakehouse.commit([Append(registry, rows)], Provenance("model.registry", "benchmark"))


if __name__ == "__main__":
    main()
