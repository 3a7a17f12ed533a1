"""Order proposals: how much each store must order of each item for its stock to last.

Here: a periodic-review order-up-to policy. An order placed after the close of the forecast origin arrives after the
lead time, and the next chance to order comes a review period later; until that next order arrives the stock must
last with the service level's probability (cycle service level). Not here: how the demand over several days is
drawn (`demand_paths.py`), nor any reading of tables.
"""

from datetime import date, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import QUANTILES
from retail_platform.replenishment.demand_paths import correlated_probabilities, total_demand_quantile
from retail_platform.settings import ReplenishmentSettings

SERIES = ["store_id", "item_id"]
ITEM_LEVELS = ("item_id", "category", "department")
DAYS_PER_WEEK = 7
NEGLIGIBLE_UNITS = 1e-6
"""Rounding must not order a case: a shortfall of a millionth of a unit is none."""


def propose_orders(
    forecast: pl.DataFrame,
    stock: pl.DataFrame | None,
    items: pl.DataFrame | None,
    settings: ReplenishmentSettings,
    *,
    issued_at: datetime,
    stock_is_simulated: bool,
) -> pl.DataFrame:
    """Inventory requirements (forecast.inventory_requirements), one row per store and item of the forecast.

    `forecast` holds the days of one origin (forecast.demand), `stock` the latest stock of each store and item that
    was known at the origin (clean.inventory), `items` the item master (clean.items).

    - Protection interval = lead time + review period. Where it is longer than the forecast's horizon, the last
      week of the horizon is repeated.
    - Lead time and case pack come from the item, else from the settings. A category or department has the median
      lead time of its items, rounded up, the settings' case pack, and the stock of its items beside its own.
    - Order-up-to level = the service level's quantile of the demand over the protection interval. Safety stock is
      that level less the expected demand; it is below 0 where a slow mover rarely sells at all.
    - Order = the fewest whole cases that lift on_hand + on_order to the level. Where the stock is not known there
      is no order quantity; where only on_order is not known, nothing counts as under way.

    Raises ValueError where the forecast has several origins or a series without every day of the horizon, or where
    the stock has several rows of one store and item or rows from after the origin.
    """
    wrong = _unusable(forecast, stock)
    if wrong:
        raise ValueError("no orders can be proposed: " + "; ".join(wrong))
    if forecast.is_empty():
        return TABLES["forecast.inventory_requirements"].empty()
    forecast = forecast.sort(*SERIES, "horizon")
    members = _members(forecast["item_id"], items)
    series = (
        forecast.group_by(SERIES, maintain_order=True)
        .agg(pl.col("forecast_origin", "shard", "model_version").first())
        .join(_supply(members), on="item_id", how="left")
        .with_columns(
            pl.col("lead_time_days").fill_null(settings.lead_time_days),
            pl.col("case_pack").fill_null(settings.case_pack),
        )
        .with_columns(protection_days=pl.col("lead_time_days") + settings.review_period_days)
    )
    return (
        _with_levels(series, forecast, settings)
        .join(_stock_position(stock, members), on=SERIES, how="left")
        .with_columns(
            pl.lit(settings.service_level).alias("service_level"),
            (pl.col("order_up_to_level") - pl.col("expected_demand")).alias("safety_stock"),
            _whole_cases().alias("order_quantity"),
            (pl.lit(stock_is_simulated) & pl.col("on_hand").is_not_null()).alias("stock_is_simulated"),
            pl.lit(issued_at, dtype=pl.Datetime("us")).alias("issued_at"),
        )
        .select(TABLES["forecast.inventory_requirements"].polars_schema.names())
    )


def _unusable(forecast: pl.DataFrame, stock: pl.DataFrame | None) -> list[str]:
    """Why the inputs cannot be used, in words; empty if they can."""
    if forecast.is_empty():
        return []
    wrong = []
    origins = forecast["forecast_origin"].unique().sort().to_list()
    if len(origins) > 1:
        wrong.append(f"the forecast has {len(origins)} origins ({_listed(origins)}); pass those of one")
    horizon = int(forecast.select(pl.col("horizon").max()).item())
    broken = (
        forecast.group_by(SERIES)
        .agg(pl.len().alias("days"), pl.col("horizon").n_unique().alias("horizons"), pl.col("horizon").min())
        .filter((pl.col("days") != horizon) | (pl.col("horizons") != horizon) | (pl.col("horizon") != 1))
        .sort(SERIES)
    )
    if len(broken):
        wrong.append(
            f"{len(broken)} series lack a day between horizon 1 and {horizon}, or have one twice"
            f" ({_listed(broken.select(pl.concat_str(SERIES, separator='/')).to_series().to_list())}); issue them whole"
        )
    if stock is not None:
        repeated = stock.filter(pl.struct(SERIES).is_duplicated()).select(SERIES).unique().sort(SERIES)
        if len(repeated):
            names = repeated.select(pl.concat_str(SERIES, separator="/")).to_series().to_list()
            wrong.append(f"the stock has several rows of {_listed(names)}; pass the latest of each")
        late = stock.filter(pl.col("as_of_date") > max(origins))
        if len(late):
            wrong.append(f"{len(late)} stock rows are from after the forecast origin {max(origins)}; leave them out")
    return wrong


def _listed(values: list[str] | list[date], most: int = 5) -> str:
    return ", ".join(map(str, values[:most])) + (f" and {len(values) - most} more" if len(values) > most else "")


def _members(item_ids: pl.Series, items: pl.DataFrame | None) -> pl.DataFrame:
    """The SKUs behind each forecast item_id, with their lead time and case pack: sku, item_id, lead_time_days,
    case_pack. The forecast stands at the level of the hierarchy whose names it uses most, at the SKU's in a draw.
    """
    if items is None:
        items = TABLES["clean.items"].empty()
    known = item_ids.unique().implode()
    matches = {level: items[level].drop_nulls().unique().is_in(known).sum() for level in ITEM_LEVELS}
    level = max(ITEM_LEVELS, key=matches.__getitem__)
    return items.filter(pl.col(level).is_in(known)).select(
        pl.col("item_id").alias("sku"),
        pl.col(level).alias("item_id"),
        "lead_time_days",
        pl.col("case_pack") if level == "item_id" else pl.lit(None, pl.Int64).alias("case_pack"),
    )


def _supply(members: pl.DataFrame) -> pl.DataFrame:
    return members.group_by("item_id").agg(
        pl.col("lead_time_days").median().ceil().cast(pl.Int64), pl.col("case_pack").first()
    )


def _with_levels(series: pl.DataFrame, forecast: pl.DataFrame, settings: ReplenishmentSettings) -> pl.DataFrame:
    """The series with the expected demand and the order-up-to level of their protection interval."""
    means = forecast["mean"].to_numpy().reshape(len(series), -1)
    quantiles = forecast.select(list(QUANTILES)).to_numpy().reshape(*means.shape, len(QUANTILES))
    protection = series["protection_days"].to_numpy()
    probabilities = correlated_probabilities(
        int(protection.max()), settings.sample_paths, settings.demand_autocorrelation, settings.seed
    )
    expected, level = np.empty(len(series)), np.empty(len(series))
    for length in np.unique(protection):
        rows = np.flatnonzero(protection == length)
        days = _days_of_horizon(int(length), horizon=means.shape[1])
        covered = means[np.ix_(rows, days)]
        expected[rows] = covered.sum(axis=1)
        level[rows] = total_demand_quantile(
            covered, quantiles[np.ix_(rows, days)], probabilities[: int(length)], settings.service_level
        )
    return series.with_columns(expected_demand=pl.Series(expected), order_up_to_level=pl.Series(level))


def _days_of_horizon(length: int, horizon: int) -> NDArray[np.int64]:
    """Positions of the forecast days that stand for the days of an interval; beyond the horizon its last week
    repeats, so that each day keeps its weekday.
    """
    week = min(DAYS_PER_WEEK, horizon)
    days = np.arange(length)
    return np.where(days < horizon, days, horizon - week + (days - horizon) % week)


def _stock_position(stock: pl.DataFrame | None, members: pl.DataFrame) -> pl.DataFrame:
    """Stock of each store and forecast item_id; the oldest of its figures dates it."""
    known = TABLES["clean.inventory"].empty() if stock is None else stock
    return (
        known.rename({"item_id": "sku"})
        .join(members.select("sku", "item_id"), on="sku", how="left")
        .with_columns(pl.coalesce("item_id", "sku").alias("item_id"))
        .group_by(SERIES)
        .agg(
            pl.col("on_hand").sum(),
            pl.when(pl.col("on_order").count() > 0).then(pl.col("on_order").sum()),
            pl.col("as_of_date").min().alias("stock_as_of"),
        )
    )


def _whole_cases() -> pl.Expr:
    shortfall = pl.col("order_up_to_level") - pl.col("on_hand") - pl.col("on_order").fill_null(0)
    cases = ((shortfall - NEGLIGIBLE_UNITS) / pl.col("case_pack")).ceil().clip(lower_bound=0)
    # Adding 0 turns the -0.0 of a rounded-up negative into 0.
    return cases * pl.col("case_pack") + 0.0
