"""What a mean model learns from and predicts with: a target day beside everything that was known of it at the time.

Here: which as-of date a target day is paired with, the columns a model sees, and their numeric form. Not here: the
statistics themselves (`features/history.py`) and the model (`forecasting/models.py`).

A horizon block that ends at h days forecasts each of its days d from `features.demand_history` as of d - h, so that
its every horizon sees lags of the same age. Beside these a row holds what is known ahead of d: the calendar,
promotions and announced prices. Weather is not among them: nobody knows it h days ahead. Nothing else may enter.

Series differ in level by three orders of magnitude. A model sees every statistic of units relative to the series' own
recent level, and learns how demand departs from it: so slow movers and fast ones teach each other, and a series that
grows is followed to levels at which nothing was ever learned.
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

CATEGORIES = ("store_id", "department", "category", "event_name", "event_type", "next_event")
"""Columns that are names, not quantities. A model learns their codes and keeps the list. Items are not among them: an
item's own statistics tell more than its name, and say it of new items too."""

LEVEL = "level"
"""Mean of some recent means of the series, in units per day: what everything else is relative to. A series of which
nothing was ever observed takes that of the item in other stores, or else of its department's items."""

LEVEL_OFFSET = 0.05
"""Units per day added to a level before anything is divided by it."""

_LEVEL_OF = ("weighted_mean_30", "mean_28", "mean_91", "weekday_mean_8")
_BORROWED_LEVELS = ("item_stores_mean_28", "department_item_mean_28")

_KEYS = ("shard", "store_id", "item_id", "as_of_date")
_WEEKDAY = ("weekday_mean_4", "weekday_mean_8", "weekday_mean_13")
_HISTORY = tuple(c.name for c in TABLES["features.demand_history"].columns if c.name not in (*_KEYS, *_WEEKDAY))
_CALENDAR = ("weekday", "day_of_month", "week_of_year", "month", "is_payday", "days_to_event", "days_since_event")
_KNOWN_AHEAD = ("on_promotion", "promotion_depth", "price")
_PRICE_RATIOS = ("price_to_last", "price_to_mean", "price_to_year", "price_to_max", "price_to_department")
_LAST_YEAR = ("last_year_weekday_mean", "last_year_mean", "year_before_mean")
_SEASONS = ("own_season", "item_season", "department_season", "department_trend")

FEATURES = (
    *CATEGORIES,
    *_CALENDAR,
    *_KNOWN_AHEAD,
    *_PRICE_RATIOS,
    LEVEL,
    *_HISTORY,
    *_WEEKDAY,
    *_LAST_YEAR,
    *_SEASONS,
)
"""Columns that a model sees, in the order of its input."""

_RELATIVE = (
    *(name for name in _HISTORY if name.startswith(("units_lag_", "mean_", "std_", "weighted_mean_"))),
    "median_28",
    "upper_28",
    "item_stores_mean_28",
    "department_item_mean_28",
    *_WEEKDAY,
    *_LAST_YEAR,
)
"""Statistics of units, which a model sees relative to the level."""

_TARGET = ("date", "units", "listed", "in_stock")
_OF_THE_DAY = ("next_event", "days_to_event", "days_since_event")
_FACTS_OF_THE_DAY = (
    *_TARGET,
    "store_id",
    "item_id",
    *(name for name in CATEGORIES if name not in ("store_id", *_OF_THE_DAY)),
    "is_payday",
    "on_promotion",
    "promotion_depth",
)

EVENT_REACH_DAYS = 28
"""Events further away than this do not count as near."""
EVENT_NAME_REACH_DAYS = 7
"""The next event is called by its name from so many days before it on."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class HorizonBlock:
    """Horizons from `first` to `last` days, forecast by one model from the history `last` days before the target."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """As segments of a backtest are called."""
        return f"horizon {self.first}-{self.last}"

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


def name_of_block(blocks: Sequence[HorizonBlock]) -> pl.Expr:
    """Name of the block that each row's `horizon` lies in; null beyond the last."""
    return pl.coalesce(pl.when(pl.col("horizon") <= block.last).then(pl.lit(block.name)) for block in blocks)


@dataclass(frozen=True)
class Known:
    """Demand panel and history in order and ready to be looked up by place: made once, read by every block.

    `last_year` is the history that seasons are read from: the history itself, or the earlier part of one with a hole.
    """

    demand: DensePanel
    history: DensePanel
    last_year: DensePanel
    events: pl.DataFrame

    @classmethod
    def of(cls, demand: pl.DataFrame, history: pl.DataFrame) -> "Known":
        """For a forecast the history may have a hole between the last weeks and those of a year before
        (`days_for_forecast`). Raises `ValueError` where a series of the rest lacks a day or has one twice.
        """
        panel = DensePanel.of(demand, "date")
        events = _events_around(panel.frame)
        days = history["as_of_date"].unique().sort()
        hole = days.filter(days.diff().dt.total_days() > 1)
        if hole.is_empty():
            dense = DensePanel.of(history, "as_of_date")
            return cls(panel, dense, dense, events)
        late = pl.col("as_of_date") >= hole[-1]
        recent, before = (DensePanel.of(history.filter(part), "as_of_date") for part in (late, ~late))
        return cls(panel, recent, before, events)


def days_for_forecast(origin: date, blocks: Sequence[HorizonBlock]) -> tuple[tuple[date, date], tuple[date, date]]:
    """First and last as-of date of the history that a forecast reads: of a year before, and of the last weeks."""
    oldest = max(block.year_lag + block.last - block.first for block in blocks)
    youngest = min(block.year_lag - 14 - block.last for block in blocks)
    recent = max(block.weekday_lag - block.first for block in blocks)
    return (
        (origin - timedelta(days=oldest), origin - timedelta(days=youngest)),
        (origin - timedelta(days=recent), origin),
    )


def training_rows(
    known: Known, block: HorizonBlock, *, cutoff: date, days: int, at_most: int | None = None, seed: int = 0
) -> pl.DataFrame:
    """Targets with what was known of them: store_id, item_id, date, units and the columns of `FEATURES`.

    Targets are the `days` days to the cutoff, itself included, whose as-of date lies within the panel; of more than
    `at_most` a random sample is taken. Out-of-stock and unlisted days tell nothing of demand and are left out. So are
    the first days of a series, which no forecast can have had as its target: a series is known from its first sale
    on, so that its first day always sells.
    """
    panel = known.demand
    if not panel.frame.height:
        return _rows(known, np.zeros(0, np.int64), block)
    start = max(
        day_number(cutoff - timedelta(days=days - 1)), day_number(from_day_number(panel.first_days.min())) + block.last
    )
    wanted = (panel.days >= start) & (panel.days <= day_number(cutoff)) & (panel.ages >= block.first)
    wanted &= panel.frame.select(observed_units().is_not_null()).to_series().to_numpy()
    targets = np.flatnonzero(wanted)
    if at_most is not None and targets.size > at_most:
        targets = np.sort(np.random.default_rng(seed).choice(targets, at_most, replace=False, shuffle=False))
    return _rows(known, targets, block)


def forecast_rows(known: Known, block: HorizonBlock, *, origin: date) -> pl.DataFrame:
    """The days of a block after `origin` of every series that existed then, with the columns of `FEATURES`."""
    panel = known.demand
    ahead = panel.days - day_number(origin)
    targets = np.flatnonzero((ahead >= block.first) & (ahead <= block.last) & (panel.ages >= ahead))
    return _rows(known, targets, block)


def learn_categories(rows: pl.DataFrame | pl.LazyFrame) -> dict[str, list[str]]:
    """The known values of each categorical column, sorted; the place in the list is the value's code."""
    of = {name: "event_name" if name == "next_event" else name for name in CATEGORIES}
    lazy = rows.lazy()
    return {
        name: lazy.select(pl.col(column).drop_nulls().unique().sort()).collect().to_series().to_list()
        for name, column in of.items()
    }


def matrix(rows: pl.DataFrame, categories: Mapping[str, Sequence[str]]) -> Floats:
    """The columns of `FEATURES` as numbers: rows x features, NaN where a value is missing or a name is unknown.
    Statistics of units are relative to the level.
    """
    level = pl.col(LEVEL) + LEVEL_OFFSET
    numbers = np.empty((rows.height, len(FEATURES)), np.float32)
    for place, name in enumerate(FEATURES):
        column = pl.col(name)
        if name in categories:
            names = list(categories[name])
            column = column.replace_strict(names, range(len(names)), default=None, return_dtype=pl.Float32)
        elif name in _RELATIVE:
            column = column / level
        numbers[:, place] = rows.select(column.cast(pl.Float32).fill_null(float("nan"))).to_series().to_numpy()
    return numbers


def level_of(rows: pl.DataFrame) -> npt.NDArray[np.float64]:
    """The level that each row's statistics are relative to, in units per day, above 0."""
    return rows[LEVEL].cast(pl.Float64).to_numpy() + LEVEL_OFFSET


def _events_around(demand: pl.DataFrame) -> pl.DataFrame:
    """Days to the next and since the last event by region and day, null beyond the reach, and the name of the next one
    where it is near. Events after the end of the panel are not seen.
    """
    is_event = pl.col("event_name").is_not_null()
    event = pl.when(is_event).then("date")
    to_next = (event.backward_fill().over("region") - pl.col("date")).dt.total_days()
    since_last = (pl.col("date") - event.forward_fill().over("region")).dt.total_days()
    name = pl.col("event_name").backward_fill().over("region")
    return (
        demand.select("region", "date", "event_name")
        .unique()
        .sort("region", "date")
        .select(
            "region",
            "date",
            next_event=pl.when(to_next <= EVENT_NAME_REACH_DAYS).then(name),
            days_to_event=pl.when(to_next <= EVENT_REACH_DAYS).then(to_next),
            days_since_event=pl.when(since_last <= EVENT_REACH_DAYS).then(since_last),
        )
    )


def _rows(known: Known, targets: Positions, block: HorizonBlock) -> pl.DataFrame:
    """What everybody knows of the target days long before them, beside their history as of the block's lags.

    The columns are listed one by one, so that none of the panel's others comes along. A series that is younger than
    the block's lag shows its history as of its first day, which was known at any origin that may forecast the target;
    other history is null where the series had none yet.
    """
    panel, history, date = known.demand, known.history, pl.col("date")
    facts = panel.frame.select(*_FACTS_OF_THE_DAY, "price_announced", "price", "region")[targets].select(
        *_FACTS_OF_THE_DAY,
        "region",
        weekday=date.dt.weekday(),
        day_of_month=date.dt.day(),
        week_of_year=date.dt.week(),
        month=date.dt.month(),
        announced_price=pl.when("price_announced").then("price"),
    )
    place, last_year = history.place_of(panel, targets), known.last_year
    year_place = last_year.place_of(panel, targets)
    as_of = np.minimum(block.last, panel.ages[targets])
    year = block.year_lag
    parts = [
        facts,
        history.gather(place, as_of, _HISTORY),
        history.gather(place, block.weekday_lag, _WEEKDAY),
        # The four weeks to 357 days before the target: the middle of them lies about a year before it.
        last_year.gather(year_place, year - 7, ("weekday_mean_4",), ("last_year_weekday_mean",)),
        last_year.gather(
            year_place,
            year - 14,
            ("mean_28", "item_stores_mean_28", "store_department_mean_28"),
            ("last_year_mean", "last_year_item", "last_year_department"),
        ),
        last_year.gather(
            year_place,
            year + block.last,
            ("mean_28", "item_stores_mean_28", "store_department_mean_28"),
            ("year_before_mean", "year_before_item", "year_before_department"),
        ),
    ]
    price = pl.coalesce("announced_price", "price_last")
    return (
        pl.concat(parts, how="horizontal")
        .join(known.events, on=["region", "date"], how="left", nulls_equal=True, maintain_order="left")
        .with_columns(
            pl.coalesce(pl.mean_horizontal(_LEVEL_OF), *_BORROWED_LEVELS, pl.lit(0.0)).cast(pl.Float32).alias(LEVEL),
            price=price,
            price_to_last=_ratio(price, "price_last"),
            price_to_mean=_ratio(price, "price_mean_28"),
            price_to_year=_ratio(price, "price_mean_364"),
            price_to_max=_ratio(price, "price_max"),
            price_to_department=_ratio(price, "store_department_price"),
            # How the season moved from the as-of date to the target a year before.
            own_season=_ratio(pl.col("last_year_mean"), "year_before_mean"),
            item_season=_ratio(pl.col("last_year_item"), "year_before_item"),
            department_season=_ratio(pl.col("last_year_department"), "year_before_department"),
            department_trend=_ratio(pl.col("store_department_mean_7"), "store_department_mean_28"),
        )
        .select(*SERIES, "date", "listed", "units", *(name for name in FEATURES if name not in SERIES))
    )


def _ratio(above: pl.Expr, below: str) -> pl.Expr:
    return pl.when(pl.col(below) > 0).then(above / pl.col(below))
