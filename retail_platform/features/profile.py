"""The shape of demand, for the eyes: how regular, how seasonal, how often out of stock, and what moved.

Here: the figures of the exploration page, from the demand panel. Not here: the effects of price and promotion
(`features/effects.py`), the page (`monitoring/profile_page.py`), and anything that a forecast reads.

Only days whose units tell the demand count (`observed_units`): out-of-stock and unlisted days are missing, not zero.
"""

from datetime import date, timedelta

import polars as pl

from retail_platform.features.dense import SERIES
from retail_platform.features.history import observed_units

SPARSE_INTERVAL, VARIABLE_SIZE = 1.32, 0.49
"""From these on Croston's method, or its correction, beats smoothing (Syntetos, Boylan and Croston 2005)."""
PATTERNS = ("smooth", "erratic", "intermittent", "lumpy")
MOVING_DAYS = 28


def demand_patterns(demand: pl.DataFrame) -> pl.DataFrame:
    """How regularly each series sells: store_id, item_id, days, selling_days, units, interval, variation, pattern.

    `interval` is the mean number of days from sale to sale (ADI), `variation` the squared coefficient of variation of
    the units of selling days (CV2). A series without a sale has neither, and the pattern "no sales".
    """
    units = pl.col("observed")
    sizes = units.filter(units > 0)
    sparse, variable = pl.col("interval") >= SPARSE_INTERVAL, pl.col("variation") >= VARIABLE_SIZE
    return (
        _observed(demand)
        .group_by(SERIES)
        .agg(
            days=pl.len().cast(pl.Int64),
            selling_days=(units > 0).sum().cast(pl.Int64),
            units=units.sum(),
            interval=pl.when((units > 0).any()).then(pl.len() / (units > 0).sum()),
            variation=(sizes.std(ddof=0) / sizes.mean()) ** 2,
        )
        .with_columns(
            pattern=pl.when(pl.col("selling_days") == 0)
            .then(pl.lit("no sales"))
            .when(sparse & variable)
            .then(pl.lit("lumpy"))
            .when(sparse)
            .then(pl.lit("intermittent"))
            .when(variable)
            .then(pl.lit("erratic"))
            .otherwise(pl.lit("smooth"))
        )
        .sort(SERIES)
    )


def seasonal_indices(demand: pl.DataFrame) -> pl.DataFrame:
    """Mean units per series and day in each weekday, month and year, relative to the mean of all days: cut, period,
    index, days.

    Weekdays count from 1, Monday. A month is compared with the year that it lies in, so that growth is no season; where
    only a part of a year is known, that part is its year.
    """
    observed = _observed(demand).with_columns(year=pl.col("date").dt.year())
    of_year = observed.with_columns(level=pl.col("observed").mean().over("year"))
    cuts = {
        "weekday": (observed, pl.col("date").dt.weekday().cast(pl.Int64), pl.col("observed").mean().over(pl.lit(1))),
        "month": (of_year, pl.col("date").dt.month().cast(pl.Int64), pl.col("level")),
        "year": (observed, pl.col("year").cast(pl.Int64), pl.col("observed").mean().over(pl.lit(1))),
    }
    total = pl.col("base").sum()
    return pl.concat(
        frame.select("date", "observed", cut=pl.lit(cut), period=period, base=base)
        .group_by("cut", "period")
        .agg(
            index=pl.when(total > 0).then(pl.col("observed").sum() / total),
            days=pl.col("date").n_unique().cast(pl.Int64),
        )
        .sort("period")
        for cut, (frame, period, base) in cuts.items()
    )


def weekly_totals(demand: pl.DataFrame) -> pl.DataFrame:
    """Units, share of listed days out of stock and share of days on promotion by week: week (its Monday), units,
    out_of_stock, on_promotion. Weeks that are not known whole are left out.
    """
    known = demand.filter(pl.col("units").is_not_null())
    week = pl.col("date").dt.truncate("1w")
    return (
        known.group_by(week=week)
        .agg(
            pl.col("units").cast(pl.Float64).sum(),
            out_of_stock=(~pl.col("in_stock")).filter("listed").mean(),
            on_promotion=pl.col("on_promotion").cast(pl.Float64).mean(),
            days=pl.col("date").n_unique(),
        )
        .filter(pl.col("days") == 7)
        .drop("days")
        .sort("week")
    )


def stock_outs(demand: pl.DataFrame, *, by: str = "department") -> pl.DataFrame:
    """Share of listed days on which the item was out of stock, by group: group, listed_days, out_of_stock_days, share;
    the greatest share first.
    """
    return (
        demand.filter(pl.col("units").is_not_null() & pl.col("listed"))
        .group_by(group=pl.col(by).fill_null("(none)"))
        .agg(listed_days=pl.len().cast(pl.Int64), out_of_stock_days=(~pl.col("in_stock")).sum().cast(pl.Int64))
        .with_columns(share=pl.col("out_of_stock_days") / pl.col("listed_days"))
        .sort("share", "group", descending=[True, False])
    )


def movers(demand: pl.DataFrame, *, days: int = MOVING_DAYS, most: int = 10) -> pl.DataFrame:
    """Series whose sales changed most between the last `days` known days and as many before: store_id, item_id,
    before, after (units per observed day), change (units per day); up and down, the greatest change first.

    A series that was not observed in one of the two spans has no change to tell and is left out.
    """
    observed = _observed(demand)
    if observed.is_empty():
        return observed.select(*SERIES, before=pl.lit(0.0), after=pl.lit(0.0), change=pl.lit(0.0))
    last: date = observed["date"].max()  # type: ignore[assignment]
    middle, first = last - timedelta(days=days), last - timedelta(days=2 * days)
    units = pl.col("observed")
    return (
        observed.filter(pl.col("date") > first)
        .group_by(SERIES)
        .agg(
            before=units.filter(pl.col("date") <= middle).mean(),
            after=units.filter(pl.col("date") > middle).mean(),
        )
        .drop_nulls()
        .with_columns(change=pl.col("after") - pl.col("before"))
        .filter(pl.col("change") != 0)
        .sort(pl.col("change").abs(), *SERIES, descending=[True, False, False])
        .head(most)
    )


def _observed(demand: pl.DataFrame) -> pl.DataFrame:
    return demand.select(*SERIES, "date", observed=observed_units().cast(pl.Float64)).filter(
        pl.col("observed").is_not_null()
    )
