"""Classes of series by what they are worth and how regularly they sell: ABC and XYZ.

Here: the two rules, as of a day. Not here: what is reported by class (`forecasting/backtest.py`).
"""

from datetime import date, timedelta

import polars as pl

from retail_platform.features.dense import SERIES
from retail_platform.features.history import observed_units

WINDOW_DAYS = 182
A_SHARE, B_SHARE = 0.80, 0.95
X_LIMIT, Y_LIMIT = 0.5, 1.0
EXPECTED_FROM_WEEKS = 8

A, B, C = (pl.lit(name) for name in "ABC")
X, Y, Z = (pl.lit(name) for name in "XYZ")


def demand_classes(demand: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """Class of every series that existed on the day: store_id, item_id, abc, xyz, demand_class ('AX' to 'CZ').

    ABC: the series that make up the first 80 % of turnover over the last 182 days are A, up to 95 % B, the rest C;
    units stand for turnover where no price is known. XYZ: how far weekly units stray from the mean of the eight weeks
    before, relative to the mean week: X below 0.5, Y below 1, else Z. What counts is how well demand can be foreseen,
    not how much it moves.
    """
    window = demand.filter(
        (pl.col("date") > as_of - timedelta(days=WINDOW_DAYS + 7 * EXPECTED_FROM_WEEKS)) & (pl.col("date") <= as_of)
    )
    priced = window["price"].null_count() < window.height
    units = observed_units().cast(pl.Float64)
    weekly = (
        window.with_columns(
            week=(pl.lit(as_of) - pl.col("date")).dt.total_days() // 7,
            units=units,
            worth=units * (pl.col("price").fill_null(0) if priced else 1.0),
        )
        .group_by(*SERIES, "week")
        .agg(pl.col("units").mean(), pl.col("worth").sum())
        .sort(*SERIES, "week", descending=[False, False, True])
        .with_columns(
            expected=pl.col("units").shift(1).rolling_mean(EXPECTED_FROM_WEEKS, min_samples=1).over(SERIES),
        )
        .filter(pl.col("week") < WINDOW_DAYS // 7)
    )
    strays = ((pl.col("units") - pl.col("expected")) ** 2).mean().sqrt() / pl.col("units").mean()
    per_series = weekly.group_by(SERIES).agg(worth=pl.col("worth").sum(), strays=strays)
    # The series that crosses a bound still belongs to the better class: the dearest one is always A.
    before = pl.col("worth").cum_sum() - pl.col("worth")
    share = pl.when(pl.col("worth").sum() > 0).then(before / pl.col("worth").sum()).otherwise(1.0)
    strays = pl.col("strays")
    return (
        per_series.sort("worth", *SERIES, descending=[True, False, False])
        .with_columns(
            abc=pl.when(share < A_SHARE).then(A).when(share < B_SHARE).then(B).otherwise(C),
            xyz=pl.when(strays < X_LIMIT).then(X).when(strays < Y_LIMIT).then(Y).otherwise(Z),
        )
        .select(*SERIES, "abc", "xyz", demand_class=pl.col("abc") + pl.col("xyz"))
        .sort(SERIES)
    )
