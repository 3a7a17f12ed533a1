"""What the feature tables promise: the demand panel and the as-of history.

Here: one Pandera model per table of the schema `features`. Not here: how they are computed (`features/`).
Every value of `features.demand_history` is known at the close of `as_of_date`; that is the promise on which the
absence of leakage rests.
"""

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
    on to the end of the horizon: what was sold and what was or is known about the day."""

    date: pl.Date = column("Day")
    department: pl.String = column("Department of the item", nullable=True)
    category: pl.String = column("Category of the item", nullable=True)
    region: pl.String = column("Region of the store", nullable=True)
    units: pl.Float32 = column(
        "Units sold net of returns, not below 0; empty on days after the last known one", unit="units", nullable=True, ge=0
    )
    listed: pl.Boolean = column("Item was on sale in the store: a price held, or no prices are known")
    in_stock: pl.Boolean = column("Stock was left at the close of the day, or no stock is known")
    price: pl.Float32 = column("Shelf price", unit="currency", nullable=True, ge=0)
    on_promotion: pl.Float32 = column("Share of the item's sales volume on promotion, known ahead", unit="share", ge=0, le=1)
    promotion_depth: pl.Float32 = column("Announced price cut", unit="share", ge=0, le=1)
    event_name: pl.String = column("Main event of the day in the region", nullable=True)
    event_type: pl.String = column("Its type", nullable=True)
    is_payday: pl.Boolean = column("Benefits or wages are paid out in the region (SNAP, pay day)")
    temperature: pl.Float32 = column("Mean temperature", unit="degrees Celsius", nullable=True)
    precipitation: pl.Float32 = column("Precipitation", unit="millimetres", nullable=True)
    consumer_prices: pl.Float32 = column("Latest published consumer price index on that day", nullable=True)
    unemployment: pl.Float32 = column("Latest published unemployment rate on that day", unit="percent", nullable=True)
