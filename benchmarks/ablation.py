"""What is each group of features worth on M5? Forecasts with all of them, and with one group taken away at a time.

    python benchmarks/ablation.py --m5 FOLDER

The panel, windows and measures of `benchmarks/accuracy.py`, with smaller trainings: the differences count, not the
level. A model without a group is trained and forecasts with that group's columns missing. The alignment to totals is
taken away like a group. Forecasts are kept in the work folder, and only missing ones are made.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from accuracy import HORIZON, accuracy, own_forecast, panel_and_history

EVERYTHING, TOTALS = "everything", "totals"
GROUPS: dict[str, tuple[str, ...]] = {
    "store, department, category": ("store_id", "department", "category"),
    "calendar": ("weekday", "day_of_month", "week_of_year", "month", "is_payday"),
    "events": ("event_name", "event_type", "next_event", "days_to_event", "days_since_event"),
    "prices": ("price", "price_", "store_department_price"),
    "daily lags": ("units_lag_",),
    "rolling statistics": ("level", "mean_", "std_", "median_", "upper_", "weighted_mean_"),
    "same weekday": ("weekday_mean_",),
    "selling and stock": ("selling_share_", "zero_run", "days_since_first_sale", "available_share_28"),
    "neighbours": (
        "store_department_mean_",
        "department_item_mean_28",
        "item_stores_mean_28",
        "department_trend",
    ),
    "last year and seasons": ("last_year_", "year_before_", "own_season", "item_season", "department_season"),
}
"""Groups by the names of their features, or by the beginnings of names where these end in an underscore. In none are
promotions, weather and economic figures, which M5 has not.
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--m5", type=Path, required=True, help="folder with the Parquet files of M5")
    arguments.add_argument("--work", type=Path, default=Path(".benchmarks"), help="where panels and forecasts are kept")
    arguments.add_argument("--windows", type=int, default=3)
    arguments.add_argument("--trees", type=int, default=150)
    arguments.add_argument("--training-rows", type=int, default=150_000)
    options = arguments.parse_args()
    folder = options.work / "all"
    folder.mkdir(parents=True, exist_ok=True)
    panel, history = panel_and_history(options.m5, folder, ())
    last: date = panel.filter(pl.col("units").is_not_null()).select(pl.col("date").max()).item()
    origins = [last - timedelta(days=HORIZON * step) for step in range(options.windows, 0, -1)]
    small = {"trees": str(options.trees), "training_rows": str(options.training_rows)}
    names = []
    for group in (EVERYTHING, *GROUPS, TOTALS):
        name = f"ablation {options.trees}-{options.training_rows} without {group}".replace(" ", "_").replace(",", "")
        names.append(name)
        for origin in origins:
            target = folder / f"{name}-{origin}.parquet"
            if target.exists():
                continue
            started = time.perf_counter()
            changes = {**small, "totals_share": "0"} if group == TOTALS else small
            with missing(GROUPS.get(group, ())):
                own_forecast(panel, history, "lightgbm", origin, changes).write_parquet(target)
            print(f"{target.stem}: {time.perf_counter() - started:.0f} s", flush=True)
    report(pl.concat(accuracy(panel, folder, names, origins)), names)


@contextmanager
def missing(group: Sequence[str]) -> Iterator[None]:
    """The features of a group are missing to what is trained and forecast meanwhile."""
    from retail_platform.forecasting import models
    from retail_platform.forecasting.training_set import FEATURES

    beginnings = tuple(name for name in group if name.endswith("_"))
    taken = [place for place, name in enumerate(FEATURES) if name in group or name.startswith(beginnings)]
    whole = models.matrix  # type: ignore[attr-defined]

    def matrix(rows: pl.DataFrame, categories: Mapping[str, Sequence[str]]) -> Any:
        numbers = whole(rows, categories)
        numbers[:, taken] = np.nan
        return numbers

    models.matrix = matrix  # type: ignore[attr-defined]
    try:
        yield
    finally:
        models.matrix = whole  # type: ignore[attr-defined]


def report(values: pl.DataFrame, names: list[str]) -> None:
    """WRMSSE of each variant, and how much is lost beside everything, with its standard error over the windows."""
    shown = values.filter(pl.col("level").is_in(["mean", "item x store"]))
    means = shown.pivot("level", index=["model", "cutoff"], values="value")
    whole = means.filter(pl.col("model") == names[0]).drop("model")
    print("| without | WRMSSE, mean of levels | lost | standard error | item x store | lost | standard error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for group, name in zip((EVERYTHING, *GROUPS, TOTALS), names, strict=True):
        both = means.filter(pl.col("model") == name).join(whole, on="cutoff", suffix="_whole")
        cells = ["nothing" if group == EVERYTHING else group]
        for level in ("mean", "item x store"):
            lost = both[level] / both[f"{level}_whole"] - 1
            error = lost.std() / lost.len() ** 0.5 if lost.len() > 1 else float("nan")
            cells += [f"{both[level].to_numpy().mean():.4f}", f"{lost.to_numpy().mean():+.1%}", f"{error:.1%}"]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
