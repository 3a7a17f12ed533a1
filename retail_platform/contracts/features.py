"""What the feature tables promise: the demand panel and the as-of history.

Here: one Pandera model per table of the schema `features`. Not here: how they are computed (`features/`).
Every value of `features.demand_history` is known at the close of `as_of_date`; that is the promise on which the
absence of leakage rests.
"""

from typing import Any

import pandera.polars as pa
import polars as pl

from retail_platform.contracts.table import column, table


class _Series(pa.DataFrameModel):
    shard: pl.String = column("Group of stores that is computed together; 'all' when there is one")
    store_id: pl.String = column("Store (clean.stores)")
    item_id: pl.String = column("Item, or the level of its hierarchy at which demand is forecast")


@table(
    "features.demand",
    grain=("store_id", "item_id", "date"),
    owner="team:data-science",
    retention_days=1827,
    replaced_by=("shard",),
    tier="gold",
)
class Demand(_Series):
    """Dense daily panel of every forecast series from its first sale to the last known day, and with `units` empty
    on to the end of the horizon: what was sold and what was or is known about the day.
    """

    date: pl.Date = column("Day")
    department: pl.String = column("Department of the item", nullable=True)
    category: pl.String = column("Category of the item", nullable=True)
    region: pl.String = column("Region of the store", nullable=True)
    units: pl.Float32 = column(
        "Units sold net of returns, not below 0; empty on days after the last known one",
        unit="units",
        nullable=True,
        ge=0,
    )
    listed: pl.Boolean = column("Item was on sale in the store: a price held, or no prices are known")
    in_stock: pl.Boolean = column(
        "Stock was left at the close of the day, or as much was sold as usual before it ran out, or no stock is known"
    )
    price: pl.Float32 = column(
        "Price of the day; mean over the items that have one where the series holds several",
        unit="currency",
        nullable=True,
        ge=0,
    )
    price_announced: pl.Boolean = column(
        "Price comes from the price feed and was known ahead; otherwise it is the average paid per unit over the 28 "
        "days before, which nobody knew ahead"
    )
    on_promotion: pl.Float32 = column("Share of the series' items on promotion, known ahead", unit="share", ge=0, le=1)
    promotion_depth: pl.Float32 = column("Announced price cut, mean over the series' items", unit="share", ge=0, le=1)
    event_name: pl.String = column("Main event of the day in the region", nullable=True)
    event_type: pl.String = column("Its type", nullable=True)
    is_payday: pl.Boolean = column("Benefits or wages are paid out in the region (SNAP, pay day)")
    temperature: pl.Float32 = column("Mean temperature", unit="degrees Celsius", nullable=True)
    precipitation: pl.Float32 = column("Precipitation", unit="millimetres", nullable=True)
    consumer_prices: pl.Float32 = column("Latest published consumer price index on that day", nullable=True)
    unemployment: pl.Float32 = column("Latest published unemployment rate on that day", unit="percent", nullable=True)


def _measure(description: str, unit: str = "units", **facts: Any) -> Any:
    return column(description, unit=unit, nullable=True, **facts)


def _lag(days: int) -> Any:
    return _measure(f"Units sold {days} days before the as-of date" if days else "Units sold on the as-of date", ge=0)


def _mean(days: int) -> Any:
    return _measure(f"Mean units per day over the last {days} days", ge=0)


@table(
    "features.demand_history",
    grain=("store_id", "item_id", "as_of_date"),
    owner="team:data-science",
    retention_days=1827,
    replaced_by=("shard",),
    tier="gold",
)
class DemandHistory(_Series):
    """What is known of every series at the close of each day from its first sale on. Days on which the item was out
    of stock or not listed are missing from lags and statistics, not zero; windows include the as-of date.
    """

    as_of_date: pl.Date = column("Day at whose close everything in the row was known")
    units_lag_0: pl.Float32 = _lag(0)
    units_lag_1: pl.Float32 = _lag(1)
    units_lag_2: pl.Float32 = _lag(2)
    units_lag_3: pl.Float32 = _lag(3)
    units_lag_4: pl.Float32 = _lag(4)
    units_lag_5: pl.Float32 = _lag(5)
    units_lag_6: pl.Float32 = _lag(6)
    units_lag_7: pl.Float32 = _lag(7)
    units_lag_13: pl.Float32 = _lag(13)
    units_lag_14: pl.Float32 = _lag(14)
    units_lag_20: pl.Float32 = _lag(20)
    units_lag_21: pl.Float32 = _lag(21)
    units_lag_27: pl.Float32 = _lag(27)
    units_lag_28: pl.Float32 = _lag(28)
    weekday_mean_4: pl.Float32 = _measure(
        "Mean units on the last 4 days of the as-of date's weekday, itself included", ge=0
    )
    weekday_mean_8: pl.Float32 = _measure(
        "Mean units on the last 8 days of the as-of date's weekday, itself included", ge=0
    )
    weekday_mean_13: pl.Float32 = _measure(
        "Mean units on the last 13 days of the as-of date's weekday, itself included", ge=0
    )
    mean_7: pl.Float32 = _mean(7)
    mean_14: pl.Float32 = _mean(14)
    mean_28: pl.Float32 = _mean(28)
    mean_56: pl.Float32 = _mean(56)
    mean_91: pl.Float32 = _mean(91)
    mean_182: pl.Float32 = _mean(182)
    mean_364: pl.Float32 = _mean(364)
    std_7: pl.Float32 = _measure("Standard deviation of daily units over the last 7 days", ge=0)
    std_28: pl.Float32 = _measure("Standard deviation of daily units over the last 28 days", ge=0)
    std_91: pl.Float32 = _measure("Standard deviation of daily units over the last 91 days", ge=0)
    median_28: pl.Float32 = _measure("Median of daily units over the last 28 days", ge=0)
    upper_28: pl.Float32 = _measure("Daily units that 90 % of the last 28 days did not exceed", ge=0)
    selling_share_28: pl.Float32 = _measure("Share of the last 28 days with a sale", "share", ge=0, le=1)
    selling_share_112: pl.Float32 = _measure("Share of the last 112 days with a sale", "share", ge=0, le=1)
    weighted_mean_15: pl.Float32 = _measure("Exponentially weighted mean of daily units, span 15 days", ge=0)
    weighted_mean_30: pl.Float32 = _measure("Exponentially weighted mean of daily units, span 30 days", ge=0)
    weighted_mean_100: pl.Float32 = _measure("Exponentially weighted mean of daily units, span 100 days", ge=0)
    zero_run: pl.Float32 = _measure("Days in a row without a sale, missing days not counted", "days", ge=0)
    days_since_first_sale: pl.Float32 = _measure("Age of the series", "days", ge=0)
    available_share_28: pl.Float32 = _measure("Share of the last 28 days listed and in stock", "share", ge=0, le=1)
    promotion_mean_28: pl.Float32 = _measure("Mean promotion share over the last 28 days", "share", ge=0, le=1)
    store_department_mean_7: pl.Float32 = _measure(
        "Mean units per day of the store's whole department over the last 7 days", ge=0
    )
    store_department_mean_28: pl.Float32 = _measure(
        "Mean units per day of the store's whole department over the last 28 days", ge=0
    )
    department_item_mean_28: pl.Float32 = _measure(
        "Mean units per item and day of the store's department over the last 28 days", ge=0
    )
    item_stores_mean_28: pl.Float32 = _measure(
        "Mean units per day and store of the item over the last 28 days, all stores of the shard", ge=0
    )
    price_last: pl.Float32 = _measure("Last known price", "currency", ge=0)
    price_mean_28: pl.Float32 = _measure("Mean price over the last 28 days", "currency", ge=0)
    price_mean_364: pl.Float32 = _measure("Mean price over the last 364 days", "currency", ge=0)
    store_department_price: pl.Float32 = _measure(
        "Mean over the items of the store's department of their last known price", "currency", ge=0
    )
    price_max: pl.Float32 = _measure("Highest price so far", "currency", ge=0)
    temperature_mean_7: pl.Float32 = _measure("Mean temperature over the last 7 days", "degrees Celsius")
    precipitation_mean_7: pl.Float32 = _measure("Mean precipitation over the last 7 days", "millimetres", ge=0)
    consumer_prices: pl.Float32 = _measure("Latest published consumer price index", "index")
    unemployment: pl.Float32 = _measure("Latest published unemployment rate", "percent")
