"""Up to which day the sales are known: of the retailer as a whole, and of stores whose files are late.

Here: the two rules. Not here: the panel that follows them (`demand.py`).

A store whose file is late did not sell nothing, and a line that is dated ahead does not mean that all stores closed
their books for the days before it. Both would else become zeros, which a forecast learns from.
"""

from datetime import date, timedelta

import polars as pl

USUAL_DAYS = 28
REPORTING_SHARE = 0.5
UNBROKEN_DAYS = 14
LATE_DAYS = 7
READ_DAYS = USUAL_DAYS + UNBROKEN_DAYS + LATE_DAYS
"""How many days before the last one these rules look at."""


def last_reported_day(selling_days: pl.DataFrame) -> date | None:
    """The last day on which at least half as many stores sold as on the median of the 28 selling days before it.

    `selling_days` has one row per store_id and business_date with sales. Null where there is none.
    """
    stores = selling_days.group_by("business_date").agg(stores=pl.col("store_id").n_unique()).sort("business_date")
    usual = pl.col("stores").shift(1).rolling_median(USUAL_DAYS, min_samples=1)
    enough = (pl.col("stores") >= REPORTING_SHARE * usual).fill_null(value=True)
    day: date | None = stores.filter(enough)["business_date"].max()  # type: ignore[assignment]
    return day


def late_stores(selling_days: pl.DataFrame, last_date: date) -> pl.DataFrame:
    """Stores whose sales of the days before `last_date` have not arrived: store_id and known_until, their last day.

    A store counts as late if it sold on each of 14 days in a row up to its last one, and that one lies at most a week
    before `last_date`. A longer silence is taken for what it looks like: the store sells nothing any more.
    """
    day = pl.col("business_date")
    last = (
        selling_days.filter(day <= last_date)
        .unique(["store_id", "business_date"])
        .with_columns(known_until=day.max().over("store_id"))
    )
    in_a_row = (day > pl.col("known_until") - timedelta(days=UNBROKEN_DAYS)).sum()
    return (
        last.group_by("store_id", "known_until")
        .agg(in_a_row=in_a_row)
        .filter(
            pl.col("in_a_row") == UNBROKEN_DAYS,
            pl.col("known_until") < last_date,
            pl.col("known_until") >= last_date - timedelta(days=LATE_DAYS),
        )
        .select("store_id", "known_until")
        .sort("store_id")
    )
