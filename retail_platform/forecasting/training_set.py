"""What a mean model learns from and predicts with: a target day beside everything that was known of it at the time.

Here: which as-of date a target day is paired with, the columns a model sees, and their numeric form. Not here: the
statistics themselves (`features/history.py`) and the model (`forecasting/models.py`).

A horizon block that ends at h days forecasts each of its days d from `features.demand_history` as of d - h, so that
its every horizon sees lags of the same age. Beside these a row holds what is known ahead of d: the calendar,
promotions and announced prices. Weather is not among them: nobody knows it h days ahead. Nothing else may enter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.dense import SERIES, DensePanel, Positions, day_number, from_day_number
from retail_platform.features.history import observed_units
from retail_platform.settings import ForecastSettings

CATEGORIES = ("store_id", "item_id", "department", "category", "event_name", "event_type")
"""Columns that are names, not quantities. A model learns their codes and keeps the list."""

_KEYS = ("shard", "store_id", "item_id", "as_of_date")
_WEEKDAY = ("weekday_mean_4", "weekday_mean_8", "weekday_mean_13")
_HISTORY = tuple(c.name for c in TABLES["features.demand_history"].columns if c.name not in (*_KEYS, *_WEEKDAY))
_CALENDAR = ("weekday", "day_of_month", "week_of_year", "month", "is_payday", "days_to_event", "days_since_event")
_KNOWN_AHEAD = ("on_promotion", "promotion_depth", "price", "price_to_mean", "price_to_max")
_LAST_YEAR = ("last_year_weekday_mean", "last_year_mean")

FEATURES = (*CATEGORIES, *_CALENDAR, *_KNOWN_AHEAD, *_HISTORY, *_WEEKDAY, *_LAST_YEAR)
"""Columns that a model sees, in the order of its input."""

_TARGET = ("date", "units", "listed", "in_stock")
_FACTS_OF_THE_DAY = (*_TARGET, *CATEGORIES, "is_payday", "on_promotion", "promotion_depth")

EVENT_REACH_DAYS = 28
"""Events further away than this do not count as near."""


@dataclass(frozen=True)
class HorizonBlock:
    """Horizons from `first` to `last` days, forecast by one model from the history `last` days before the target."""

    first: int
    last: int

    @property
    def weekday_lag(self) -> int:
        """Days back to the latest known day of the target's weekday."""
        return -(-self.last // 7) * 7

    @property
    def year_lag(self) -> int:
        """Days back to the same weekday a year before; two years where the block reaches that far ahead."""
        return 364 if self.last <= 364 - 14 else 728


def horizon_blocks(settings: ForecastSettings) -> list[HorizonBlock]:
    """The blocks of the settings, cut at or stretched to the horizon so that every day has exactly one."""
    ends = [*(end for end in settings.horizon_blocks if end < settings.horizon_days), settings.horizon_days]
    return [HorizonBlock(before + 1, end) for before, end in zip([0, *ends[:-1]], ends, strict=True)]


def training_rows(
    demand: pl.DataFrame,
    history: pl.DataFrame,
    block: HorizonBlock,
    *,
    cutoff: date,
    days: int,
    at_most: int | None = None,
    seed: int = 0,
) -> pl.DataFrame:
    """Targets with what was known of them: store_id, item_id, date, units and the columns of `FEATURES`.

    Targets are the `days` days to the cutoff, itself included, whose as-of date lies within the panel; of more than
    `at_most` a random sample is taken. Out-of-stock and unlisted days tell nothing of demand and are left out. So are
    the first days of a series, which no forecast can have had as its target: a series is known from its first sale
    on, so that its first day always sells.
    """
    panel = DensePanel.of(demand, "date")
    start = max(cutoff - timedelta(days=days - 1), from_day_number(panel.first_days.min()) + timedelta(days=block.last))
    wanted = (
        (panel.days >= day_number(start))
        & (panel.days <= day_number(cutoff))
        & (panel.ages >= block.first)
        & panel.frame.select(observed_units().is_not_null()).to_series().to_numpy()
    )
    targets = np.flatnonzero(wanted)
    if at_most is not None and targets.size > at_most:
        targets = np.sort(np.random.default_rng(seed).choice(targets, at_most, replace=False, shuffle=False))
    return _rows(panel, DensePanel.of(history, "as_of_date"), targets, block)


def forecast_rows(demand: pl.DataFrame, history: pl.DataFrame, block: HorizonBlock, *, origin: date) -> pl.DataFrame:
    """The days of a block after `origin` of every series that existed then, with the columns of `FEATURES`.

    A series younger than the block's lag has no history to show yet: its history columns are null.
    """
    panel = DensePanel.of(demand, "date")
    ahead = panel.days - day_number(origin)
    targets = np.flatnonzero((ahead >= block.first) & (ahead <= block.last) & (panel.ages >= ahead))
    return _rows(panel, DensePanel.of(history, "as_of_date"), targets, block)


def learn_categories(rows: pl.DataFrame) -> dict[str, list[str]]:
    """The known values of each categorical column, sorted; the place in the list is the value's code."""
    return {name: rows[name].drop_nulls().unique().sort().to_list() for name in CATEGORIES}


def matrix(rows: pl.DataFrame, categories: Mapping[str, Sequence[str]]) -> npt.NDArray[np.float32]:
    """The columns of `FEATURES` as numbers: rows x features, NaN where a value is missing or a name is unknown."""
    columns = [
        pl.col(name).replace_strict(
            list(categories[name]), range(len(categories[name])), default=None, return_dtype=pl.Float32
        )
        if name in categories
        else pl.col(name).cast(pl.Float32)
        for name in FEATURES
    ]
    return rows.select(columns).to_numpy(order="c")


def _event_distances(demand: pl.DataFrame) -> pl.DataFrame:
    """Days to the next and since the last event by region and day; null beyond the reach. Events after the end of the
    panel are not seen.
    """
    event = pl.when(pl.col("event_name").is_not_null()).then("date")
    to_next = (event.backward_fill().over("region") - pl.col("date")).dt.total_days()
    since_last = (pl.col("date") - event.forward_fill().over("region")).dt.total_days()
    return (
        demand.select("region", "date", "event_name")
        .unique()
        .sort("region", "date")
        .select(
            "region",
            "date",
            days_to_event=pl.when(to_next <= EVENT_REACH_DAYS).then(to_next),
            days_since_event=pl.when(since_last <= EVENT_REACH_DAYS).then(since_last),
        )
    )


def _rows(panel: DensePanel, history: DensePanel, targets: Positions, block: HorizonBlock) -> pl.DataFrame:
    """What everybody knows of the target days long before them, beside their history as of the block's lags.

    The columns are listed one by one, so that none of the panel's others comes along. History is null where the
    series had none yet.
    """
    date = pl.col("date")
    facts = (*_FACTS_OF_THE_DAY, "price_announced", "price", "region")
    known = panel.frame.select(facts)[targets].select(
        *_FACTS_OF_THE_DAY,
        weekday=date.dt.weekday(),
        day_of_month=date.dt.day(),
        week_of_year=date.dt.week(),
        month=date.dt.month(),
        announced_price=pl.when("price_announced").then("price"),
        region="region",
    )
    places = history.places_of(panel, targets)
    # The four weeks to 357 days before the target: the middle of them lies about a year before it.
    last_year = ("weekday_mean_4", block.year_lag - 7, _LAST_YEAR[0]), ("mean_28", block.year_lag - 14, _LAST_YEAR[1])
    seen = [
        *((name, block.last, name) for name in _HISTORY),
        *((name, block.weekday_lag, name) for name in _WEEKDAY),
        *last_year,
    ]
    price = pl.coalesce("announced_price", "price_last")
    return (
        pl.concat([known, history.gather(places, seen)], how="horizontal")
        .join(_event_distances(panel.frame), on=["region", "date"], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            price=price,
            price_to_mean=price / pl.col("price_mean_28"),
            price_to_max=price / pl.col("price_max"),
        )
        .select(*SERIES, "date", "listed", "units", *(name for name in FEATURES if name not in SERIES))
    )
