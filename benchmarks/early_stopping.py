"""After how many trees should the mean model stop on M5, and does early stopping find it?

    python benchmarks/early_stopping.py --m5 FOLDER
    python benchmarks/early_stopping.py --m5 FOLDER --windows 4 --trees 500

WRMSSE (mean of the levels) in each of the rolling windows after every part of the trees that the platform's trials look
at; and for each window but the first two, what it would have been where the two windows before it did best, beside that
of all trees. FOLDER holds sales_daily, sell_prices and calendar as Parquet, as `load m5` takes them.
"""

import argparse
import statistics
from datetime import date, timedelta
from pathlib import Path

import polars as pl
from accuracy import HORIZON, panel_and_history

from retail_platform.forecasting.models import DEFAULT_OBJECTIVE
from retail_platform.forecasting.trials import TREES_TRIAL, WINDOWS, run_trials, stages, with_choices
from retail_platform.settings import ForecastSettings


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--m5", type=Path, required=True, help="folder with the Parquet files of M5")
    arguments.add_argument("--work", type=Path, default=Path(".benchmarks"), help="where the panel is kept")
    arguments.add_argument("--windows", type=int, default=8, help="an even number of rolling windows")
    arguments.add_argument("--trees", type=int, default=ForecastSettings().trees)
    options = arguments.parse_args()
    folder = options.work / "all"
    folder.mkdir(parents=True, exist_ok=True)
    panel, history = panel_and_history(options.m5, folder, ())
    last: date = panel.filter(pl.col("units").is_not_null()).select(pl.col("date").max()).item()
    settings = ForecastSettings(trees=options.trees, objective=DEFAULT_OBJECTIVE)
    parts = []
    for back in range(options.windows - WINDOWS, -1, -WINDOWS):
        cutoff = last - timedelta(days=HORIZON * (back + 1))
        parts.append(run_trials(panel, history, cutoff, settings, lambda line: print(f"  {line}", flush=True)))
    report(pl.concat(parts), settings)


def report(metrics: pl.DataFrame, settings: ForecastSettings) -> None:
    """Print the figures as Markdown: a row for each window, the number of trees that would have been chosen for it, and
    what that would have gained over growing all of them.
    """
    counts = stages(settings.trees)
    cutoffs = metrics["cutoff"].unique().sort().to_list()
    print(f"\n| window after | {' | '.join(f'{count} trees' for count in counts)} | chosen | lower by |")
    print("| --- " * (len(counts) + 3) + "|")
    gains = []
    for place, cutoff in enumerate(cutoffs):
        own = metrics.filter(cutoff=cutoff)
        values = dict(own.select(pl.col("segment").str.strip_prefix(TREES_TRIAL), "value").iter_rows())
        row = [f"{cutoff}", *(f"{values[str(count)]:.4f}" for count in counts), "", ""]
        if place >= WINDOWS:
            before = metrics.filter(pl.col("cutoff").is_in(cutoffs[place - WINDOWS : place]))
            chosen = with_choices(settings, before).trees
            gains.append(1 - values[str(chosen)] / values[str(settings.trees)])
            row[-2:] = [str(chosen), f"{gains[-1]:.2%}"]
        print(f"| {' | '.join(row)} |")
    mean, deviation = statistics.mean(gains), statistics.stdev(gains)
    print(f"\nlower by {mean:.2%} in the mean of {len(gains)} windows, deviation {deviation:.2%}")


if __name__ == "__main__":
    main()
