"""How long do the features of an M5-size panel take, and how much memory, beside mlforecast?

    python benchmarks/features.py
    python benchmarks/features.py --stores 2 --peers-python OTHER/bin/python

A simulated panel of 10 stores and 30,490 series over up to 1,913 days, about 48 million rows, lies in a Parquet file
for each store. The platform computes features.demand_history of them, one shard (a store) after the other, as its
assets do: once all 55 statistics, and once those alone that mlforecast has as well: 14 lags, rolling means, deviations
and quantiles, weekday means and exponentially weighted means, 32 in all. mlforecast computes these store by store, and
once of the whole panel. Each in a process of its own, from reading the file to the features in memory, by turns.

The peer needs `pip install mlforecast`; where it cannot live beside the platform, name the Python of another
environment with --peers-python.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

LAST_DAY = date(2016, 5, 22)
LONGEST_DAYS, SHORTEST_DAYS = 1_913, 1_237
DEPARTMENTS = 7
CONTESTANTS = ("platform", "platform, the same", "mlforecast by store", "mlforecast whole")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--stores", type=int, default=10)
    arguments.add_argument("--items", type=int, default=3_049)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    arguments.add_argument("--peers-python", default=sys.executable)
    arguments.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.contestant:
        compute(options.contestant, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows = sum(write_store(Path(folder), number, options.items) for number in range(options.stores))
        print(f"{rows:,} rows of {options.stores * options.items:,} series")
        race(Path(folder), options.rounds, options.peers_python)


def race(folder: Path, rounds: int, peers_python: str) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    memory: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name in CONTESTANTS:
            python = sys.executable if name.startswith("platform") else peers_python
            started = time.perf_counter()
            process = subprocess.Popen([python, __file__, "--folder", str(folder), "--contestant", name])
            _, status, used = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"{name} ended with {os.waitstatus_to_exitcode(status)}")
            seconds[name].append(time.perf_counter() - started)
            memory[name].append(used.ru_maxrss / 1024**2)
            print(f"  {name}: {seconds[name][-1]:.0f} s, {memory[name][-1]:.1f} GB", flush=True)
    same = "platform, the same"
    for name in CONTESTANTS:
        took, needed = statistics.mean(seconds[name]), max(memory[name])
        print(
            f"{name:<20} {took:>6.0f} s {needed:>6.1f} GB; {took / statistics.mean(seconds[same]):.1f} times the time "
            f"and {needed / max(memory[same]):.1f} times the memory of {same}"
        )


def write_store(folder: Path, store: int, items: int) -> int:
    """One store's part of features.demand: series of different ages that all end on the last day."""
    random = np.random.default_rng(store)
    lengths = random.integers(SHORTEST_DAYS, LONGEST_DAYS + 1, items)
    item = np.repeat(np.arange(items), lengths)
    age = np.arange(item.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    days = pl.Series([LAST_DAY - timedelta(days=back) for back in range(LONGEST_DAYS)])
    back = np.repeat(lengths, lengths) - 1 - age
    rate = random.lognormal(-0.2, 1.0, items)[item] * (1 + 0.3 * np.sin(2 * np.pi * (back % 7) / 7))
    price = (1 + random.integers(0, 900, items) / 100)[item] * (1 + 0.1 * (age // 91 % 3))
    frame = pl.DataFrame(
        {
            "shard": "all",
            "store_id": f"S{store:02}",
            "item_id": pl.Series([f"ITEM_{number:04}" for number in range(items)]).gather(item),
            "date": days.gather(back),
            "department": pl.Series([f"D{number % DEPARTMENTS}" for number in range(items)]).gather(item),
            "category": pl.Series([f"C{number % DEPARTMENTS % 3}" for number in range(items)]).gather(item),
            "region": f"R{store % 3}",
            "units": random.poisson(rate).astype(np.float32),
            "listed": True,
            "in_stock": True,
            "price": price.astype(np.float32),
            "price_announced": True,
            "on_promotion": (random.random(item.size) < 0.05).astype(np.float32),
            "promotion_depth": np.zeros(item.size, np.float32),
            "event_name": None,
            "event_type": None,
            "is_payday": back % 14 == 0,
            "temperature": (15 + 10 * np.sin(back / 58)).astype(np.float32),
            "precipitation": (back % 5).astype(np.float32),
            "consumer_prices": 100.0,
            "unemployment": 5.0,
        },
        schema_overrides={
            "event_name": pl.String,
            "event_type": pl.String,
            "consumer_prices": pl.Float32,
            "unemployment": pl.Float32,
        },
    )
    frame.write_parquet(folder / f"store_{store:02}.parquet")
    return frame.height


def compute(contestant: str, folder: Path) -> None:
    files = sorted(folder.glob("store_*.parquet"))
    if contestant == "platform":
        from retail_platform.features.history import build_history

        for file in files:
            build_history(pl.read_parquet(file))
    elif contestant == "platform, the same":
        for file in files:
            same_by_platform(pl.read_parquet(file, columns=["store_id", "item_id", "date", "units"]))
    elif contestant == "mlforecast by store":
        for file in files:
            by_mlforecast([file])
    else:
        by_mlforecast(files)


def same_by_platform(demand: pl.DataFrame) -> pl.DataFrame:
    """The statistics of units that mlforecast has as well, by the platform's own expressions."""
    from retail_platform.features.dense import DensePanel
    from retail_platform.features.history import _lags, _means, _statistics, _unit_quantiles

    shared = ("std_", "weighted_mean_")
    dense = DensePanel.of(demand, "date")
    panel = dense.frame.select(
        series=pl.Series(dense.series, dtype=pl.UInt32),
        age=pl.Series(dense.ages, dtype=pl.UInt32),
        observed="units",
    )
    statistics = [one.over("series") for one in _statistics() if one.meta.output_name().startswith(shared)]
    means = _means(panel, dense.ages, ("mean", "weekday_mean"))
    own = [means, _unit_quantiles(panel["observed"], dense.ages)]
    return pl.concat([panel.select(_lags()), panel.select(statistics), *own], how="horizontal")


def by_mlforecast(files: list[Path]) -> None:
    from mlforecast import MLForecast
    from mlforecast.lag_transforms import (
        ExponentiallyWeightedMean,
        RollingMean,
        RollingQuantile,
        RollingStd,
        SeasonalRollingMean,
    )

    panel = pl.concat(
        pl.scan_parquet(file).select(
            unique_id=pl.concat_str("store_id", "item_id", separator="|"), ds="date", y="units"
        )
        for file in files
    ).collect()
    transforms = [
        *(RollingMean(days, min_samples=1) for days in (7, 14, 28, 56, 91, 182, 364)),
        *(RollingStd(days, min_samples=2) for days in (7, 28, 91)),
        *(RollingQuantile(share, 28, min_samples=1) for share in (0.5, 0.9)),
        *(ExponentiallyWeightedMean(2 / (span + 1)) for span in (15, 30, 100)),
        *(SeasonalRollingMean(7, weeks, min_samples=1) for weeks in (4, 8, 13)),
    ]
    forecaster = MLForecast(
        models={},
        freq="1d",
        lags=[1, 2, 3, 4, 5, 6, 7, 8, 14, 15, 21, 22, 28, 29],
        lag_transforms={1: transforms},
        num_threads=2,
    )
    forecaster.preprocess(panel, static_features=[], dropna=False)


if __name__ == "__main__":
    main()
