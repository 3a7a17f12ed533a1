"""From the demand panel to what was known of each series at the close of each day (`features.demand_history`).

Here: lags and rolling statistics, each over days up to and including the as-of date. Not here: what is known ahead
of a day (the panel itself holds it) and the pairing of a target day with its as-of date
(`forecasting/training_set.py`).
"""

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.dense import SERIES

LAGS = (0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 20, 21, 27, 28)
WEEKS = (4, 8, 13)
WINDOWS = (7, 14, 28, 56, 91, 182, 364)
DEVIATIONS = (7, 28, 91)
SPANS = (15, 30, 100)

_OBSERVED = pl.col("observed")


def build_history(demand: pl.DataFrame) -> pl.DataFrame:
    """Compute features.demand_history from a frame of features.demand: one row per series and day up to the last one
    whose sales are known.

    Days on which the item was out of stock without a sale, or not listed, and days whose sales have not arrived from
    the store, are missing from every statistic of units. A row depends on no day after its as-of date.
    """
    last_known = demand.select(pl.col("date").filter(pl.col("units").is_not_null()).max()).item()
    known = demand.filter(pl.col("date") <= last_known).sort("store_id", "item_id", "date")
    panel = known.select(
        "units",
        "on_promotion",
        "price",
        "temperature",
        "precipitation",
        series=pl.struct("store_id", "item_id").rle_id(),
        weekday=pl.col("date").dt.weekday(),
        observed=observed_units(),
    )
    history = pl.concat(
        [
            known.select("shard", "store_id", "item_id", "consumer_prices", "unemployment", as_of_date="date"),
            panel.select(statistic.over("series") for statistic in _statistics()),
            _weekday_means(panel),
            _department(known),
            _item_mean(known),
        ],
        how="horizontal",
    )
    contract = TABLES["features.demand_history"].polars_schema
    return history.select(pl.col(name).cast(dtype) for name, dtype in contract.items())


def observed_units() -> pl.Expr:
    """Units of a day of the demand panel where they tell the demand; null on a day on which the item was out of stock
    or not listed, and on days to come.
    """
    return pl.when(pl.col("listed") & (pl.col("in_stock") | (pl.col("units") > 0))).then(pl.col("units"))


def _statistics() -> list[pl.Expr]:
    """Statistics of one series, in the order of its days."""
    sold = (_OBSERVED > 0).cast(pl.Float32)
    observed_days = _OBSERVED.is_not_null().cum_sum()
    days_at_sale = pl.when(pl.col("units") > 0).then(observed_days).forward_fill()
    return [
        *(_OBSERVED.shift(days).alias(f"units_lag_{days}") for days in LAGS),
        *(_rolling_mean(_OBSERVED, days).alias(f"mean_{days}") for days in WINDOWS),
        *(_OBSERVED.rolling_std(days, min_samples=2).alias(f"std_{days}") for days in DEVIATIONS),
        _OBSERVED.rolling_median(28, min_samples=1).alias("median_28"),
        _OBSERVED.rolling_quantile(0.9, "linear", window_size=28, min_samples=1).alias("upper_28"),
        *(_rolling_mean(sold, days).alias(f"selling_share_{days}") for days in (28, 112)),
        *(
            _OBSERVED.ewm_mean(span=days, ignore_nulls=True).forward_fill().alias(f"weighted_mean_{days}")
            for days in SPANS
        ),
        (observed_days - days_at_sale).alias("zero_run"),
        pl.int_range(pl.len()).alias("days_since_first_sale"),
        _rolling_mean(_OBSERVED.is_not_null().cast(pl.Float32), 28).alias("available_share_28"),
        _rolling_mean(pl.col("on_promotion"), 28).alias("promotion_mean_28"),
        pl.col("price").forward_fill().alias("price_last"),
        *(_rolling_mean(pl.col("price"), days).alias(f"price_mean_{days}") for days in (28, 364)),
        pl.col("price").cum_max().forward_fill().alias("price_max"),
        _rolling_mean(pl.col("temperature"), 7).alias("temperature_mean_7"),
        _rolling_mean(pl.col("precipitation"), 7).alias("precipitation_mean_7"),
    ]


def _rolling_mean(values: pl.Expr, days: int) -> pl.Expr:
    return values.rolling_mean(days, min_samples=1)


def _weekday_means(panel: pl.DataFrame) -> pl.DataFrame:
    return panel.select(
        _rolling_mean(_OBSERVED, weeks).over("series", "weekday").alias(f"weekday_mean_{weeks}") for weeks in WEEKS
    )


def _department(known: pl.DataFrame) -> pl.DataFrame:
    """Units of the store's department per day and per item and day, and the price of its items."""
    keys = ["store_id", "department", "date"]
    units = pl.col("units")
    daily = (
        known.with_columns(last_price=pl.col("price").forward_fill().over(SERIES))
        .group_by(keys)
        .agg(
            total=pl.when(units.count() > 0).then(units.sum()),
            per_item=observed_units().mean(),
            store_department_price=pl.col("last_price").mean(),
        )
        .sort(keys)
    )
    means = daily.select(
        *keys,
        "store_department_price",
        *(
            _rolling_mean(pl.col("total"), days).over("store_id", "department").alias(f"store_department_mean_{days}")
            for days in (7, 28)
        ),
        department_item_mean_28=_rolling_mean(pl.col("per_item"), 28).over("store_id", "department"),
    )
    return known.select(keys).join(means, on=keys, how="left", nulls_equal=True, maintain_order="left").drop(keys)


def _item_mean(known: pl.DataFrame) -> pl.DataFrame:
    """Units of the item per store and day, averaged over 28 days, of the stores where it was available."""
    keys = ["item_id", "date"]
    mean = known.group_by(keys).agg(mean=observed_units().mean()).sort(keys)
    mean = mean.select(*keys, item_stores_mean_28=_rolling_mean(pl.col("mean"), 28).over("item_id"))
    return known.select(keys).join(mean, on=keys, how="left", maintain_order="left").drop(keys)
