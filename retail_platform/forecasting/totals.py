"""What a store's category sells in all: a regression on the calendar, to which the forecasts of its series are aligned.

Here: the daily totals of the nodes store x category (or department, where categories are what is forecast), what the
calendar does to them, their forecast, and the alignment of a forecast of series to it. Not here: how a total is shared
among its series (`forecasting/models.py`) and the spread around the sums (`forecasting/quantiles.py`).

A model of many sparse series sees a season, an event or a pay day through the noise of each; the sums of its forecasts
miss what is plain in the totals. The logarithm of a node's total is regressed (ridge) on the weekday, the day of the
month, pay days by weekday, the season and each event with the days around it, beside a trend with a bend each half
year. The effects are learned from all nodes of the category together, and each node departs from them as far as its
own days tell. A forecast multiplies the level of the last weeks by the effects of its days; it continues no trend.

Days on which a store was closed tell nothing and are left out; an event on which a region's stores have always been
closed is forecast as closed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.features.dense import day_number
from retail_platform.settings import ForecastSettings

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Node = tuple[str, str | None]
"""Store and category; the department where no category is known, or each has a single series."""

NODE = ["store_id", "node"]

LEARNING_DAYS = 5 * 364
SEASON_AFTER_DAYS = 2 * 364
"""A season is told from a trend only where each part of the year has come twice."""
LEVEL_DAYS = 91
LEVEL_MEMORY = 0.93
"""Weight of a day in the level, relative to that of the day after it."""
BEND_DAYS = 182
DAYS_AROUND_EVENTS = (-3, -2, -1, 0, 1)
WEEKDAY, MONTH, SEASON, EVENT, NEIGHBOUR = 0.5, 0.05, 0.1, 0.2, 0.1
"""Size of effects to be expected before anything is known of them: standard deviation on the scale of logarithms."""
OWN = 0.7
"""Size of a node's departure from the effects of its category, relative to these."""
_SMALLEST_NOISE = 0.02

LARGEST_CORRECTION = 2.0
"""Factor by which a day of a node is corrected at most, up or down."""
CLOSED_SHARE = 0.05
"""A store was closed where it sold less than this share of what it usually does on the weekday."""
_USUAL_WEEKS = 9
_FEWEST_USUAL_UNITS = 20.0


@dataclass(frozen=True)
class Calendar:
    """Days one after another from `first` on, in one region: the event of each day or none, and pay days."""

    first: date
    events: tuple[str | None, ...]
    paydays: tuple[bool, ...]

    @property
    def days(self) -> int:
        return len(self.events)

    def effects(self, events: Sequence[str], *, season: bool) -> Doubles:
        """Days x effects: what may move the demand of a day, in the order of `penalties`."""
        days = [self.first + timedelta(days=number) for number in range(self.days)]
        weekday = np.array([day.weekday() for day in days])
        day_of_month = np.array([day.day for day in days])
        year = 2 * np.pi * np.array([day.timetuple().tm_yday for day in days]) / 365.25
        weekend, paydays = weekday >= 5, np.array(self.paydays, bool)
        columns = [weekday == number for number in range(7)]
        columns += [paydays, *(paydays & (weekday == number) for number in range(7))]
        columns += [day_of_month == number for number in range(1, 32)]
        columns += [(day_of_month >= first) & (day_of_month <= last) for first, last in _PARTS_OF_THE_MONTH]
        if season:
            waves = [np.sin(year), np.cos(year), np.sin(2 * year), np.cos(2 * year)]
            columns += [*waves, waves[0] * weekend, waves[1] * weekend]
        of_day = np.array([name or "" for name in self.events])
        for name in events:
            columns += [_shifted(of_day == name, step) for step in DAYS_AROUND_EVENTS]
        return np.column_stack(columns).astype(np.float64)


_PARTS_OF_THE_MONTH = ((1, 3), (4, 6), (7, 10), (11, 15), (16, 20), (26, 31))


def _penalties(events: Sequence[str], *, season: bool) -> Doubles:
    """Inverse of the variance to be expected of each effect."""
    month = 8 + 31 + len(_PARTS_OF_THE_MONTH)
    around = [EVENT if step == 0 else NEIGHBOUR for step in DAYS_AROUND_EVENTS]
    sizes = [WEEKDAY] * 7 + [MONTH] * month + [SEASON] * (6 if season else 0) + around * len(events)
    penalties: Doubles = np.power(np.array(sizes), -2.0)
    return penalties


@dataclass(frozen=True)
class StoreTotals:
    """`effects`: by node what each effect of the calendar adds to the logarithm of its total. `events`: their names, in
    the order of the effects; `closed`: region and event on which its stores have always been closed. `by_department`:
    whether nodes are departments though categories are known. `share`: weight of the totals, the rest that of the sums
    of the series, as a geometric mean.
    """

    effects: Mapping[Node, tuple[float, ...]]
    events: tuple[str, ...]
    closed: frozenset[tuple[str, str]]
    by_department: bool
    season: bool
    horizon_days: int
    share: float

    @classmethod
    def none(cls, settings: ForecastSettings) -> "StoreTotals":
        """No totals: every forecast stays as it is."""
        return cls({}, (), frozenset(), False, False, settings.horizon_days, settings.totals_share)

    @classmethod
    def fit(cls, demand: pl.DataFrame, cutoff: date, settings: ForecastSettings) -> "StoreTotals":
        """Learn from features.demand up to the cutoff, from the last five years at most. Nodes without a sale are left
        out; a panel without any gives a model that leaves every forecast as it is.
        """
        since = cutoff - timedelta(days=LEARNING_DAYS - 1)
        # Lazy, so that of a large panel no more is copied than each step reads.
        known = demand.lazy().filter(pl.col("date").is_between(since, cutoff))
        if not known.select(pl.len()).collect().item():
            return cls.none(settings)
        by_department = _categories_are_series(known)
        totals = _Totals.of(known, by_department=by_department)
        days = totals.units.shape[1]
        season = days >= SEASON_AFTER_DAYS
        calendars = _calendars(known, totals.first, days)
        events = tuple(sorted({name for calendar in calendars.values() for name in calendar.events if name}))
        closed = frozenset(
            (region, name)
            for region, calendar in calendars.items()
            for name in events
            if _always_closed(totals, region, calendar, name)
        )
        designs = {region: calendar.effects(events, season=season) for region, calendar in calendars.items()}
        age = np.arange(days)[::-1]
        recency = np.power(0.5, age / settings.half_life_days)
        trend = _trend(days)
        penalties = _penalties(events, season=season)
        effects: dict[Node, tuple[float, ...]] = {}
        for category in dict.fromkeys(node[1] for node in totals.nodes):
            members = [number for number, node in enumerate(totals.nodes) if node[1] == category]
            fits = {
                number: _without_trend(totals, number, designs[totals.regions[number]], trend, recency)
                for number in members
            }
            squares = sum((fit.squares for fit in fits.values()), np.zeros((penalties.size, penalties.size)))
            products = sum((fit.products for fit in fits.values()), np.zeros(penalties.size))
            common = np.linalg.solve(squares + np.diag(penalties), products)
            for number, fit in fits.items():
                departure = np.linalg.solve(
                    fit.squares + np.diag(penalties / OWN**2), fit.products - fit.squares @ common
                )
                effects[totals.nodes[number]] = tuple(float(f"{value:.9g}") for value in common + departure)
        return cls(
            dict(sorted(effects.items(), key=str)),
            events,
            closed,
            by_department,
            season,
            settings.horizon_days,
            settings.totals_share,
        )

    def forecast(self, demand: pl.DataFrame, origin: date) -> pl.DataFrame:
        """Expected units of each node that was learned, on the days after `origin`: store_id, node, date, total.

        Reads what was sold on the last 91 days to `origin`, and the calendar; nothing else of the days after it.
        """
        schema = {"store_id": pl.String, "node": pl.String, "date": pl.Date, "total": pl.Float64}
        known = demand.lazy().filter(pl.col("date").is_between(origin - timedelta(days=LEVEL_DAYS - 1), origin))
        if not self.effects or not known.select(pl.len()).collect().item():
            return pl.DataFrame(schema=schema)
        totals = _Totals.of(known, by_department=self.by_department)
        days = totals.units.shape[1]
        until = origin + timedelta(days=self.horizon_days)
        ahead = demand.lazy().filter(pl.col("date").is_between(totals.first, until))
        calendars = _calendars(ahead, totals.first, days + self.horizon_days)
        designs = {region: calendar.effects(self.events, season=self.season) for region, calendar in calendars.items()}
        memory = np.power(LEVEL_MEMORY, np.arange(days)[::-1])
        parts = [pl.DataFrame(schema=schema)]
        for number, (store_id, node) in enumerate(totals.nodes):
            effects = self.effects.get((store_id, node))
            weight = memory * totals.tells[number]
            if effects is None or not weight.any():
                continue
            calendar = calendars[totals.regions[number]]
            multiple = np.exp(np.clip(designs[totals.regions[number]] @ np.array(effects), -20, 20))
            level = weight @ np.nan_to_num(totals.units[number]) / (weight @ multiple[:days])
            open_days = [(totals.regions[number], name) not in self.closed for name in calendar.events[days:]]
            parts.append(
                pl.DataFrame(
                    {
                        "store_id": [store_id] * self.horizon_days,
                        "node": [node] * self.horizon_days,
                        "date": [origin + timedelta(days=step) for step in range(1, self.horizon_days + 1)],
                        "total": level * multiple[days:] * np.array(open_days),
                    },
                    schema=schema,
                )
            )
        return pl.concat(parts)

    def align(self, forecast: pl.DataFrame, demand: pl.DataFrame, origin: date) -> pl.DataFrame:
        """Multiply `mean` (beside store_id, item_id, department, category and date) so that the sum of a node's series
        moves towards its forecast on each day by the share, as far as the largest correction allows. Nodes of a single
        series, and those that were not learned, stay as they are.
        """
        if not self.effects:
            return forecast
        keys = [*NODE, "date"]
        numbered = forecast.with_columns(node=_node(by_department=self.by_department))
        factors = (
            numbered.group_by(keys)
            .agg(sum=pl.col("mean").sum(), series=pl.len())
            .filter((pl.col("series") > 1) & (pl.col("sum") > 0))
            .join(self.forecast(demand, origin), on=keys, nulls_equal=True)
            .with_columns(ratio=pl.col("total") / pl.col("sum"))
            .select(
                *keys,
                factor=pl.when(pl.col("total") > 0)
                .then(pl.col("ratio").clip(1 / LARGEST_CORRECTION, LARGEST_CORRECTION) ** self.share)
                .otherwise(0.0),
            )
        )
        joined = numbered.join(factors, on=keys, how="left", nulls_equal=True, maintain_order="left")
        return joined.with_columns(mean=pl.col("mean") * pl.col("factor").fill_null(1.0)).drop("factor", "node")

    def to_json(self) -> str:
        return json.dumps(
            {
                "horizon_days": self.horizon_days,
                "share": self.share,
                "by_department": self.by_department,
                "season": self.season,
                "events": self.events,
                "closed": sorted(self.closed),
                "nodes": [[*node, effects] for node, effects in self.effects.items()],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "StoreTotals":
        facts: dict[str, Any] = json.loads(text)
        return cls(
            {(store_id, node): tuple(effects) for store_id, node, effects in facts["nodes"]},
            tuple(facts["events"]),
            frozenset((region, name) for region, name in facts["closed"]),
            facts["by_department"],
            facts["season"],
            facts["horizon_days"],
            facts["share"],
        )


@dataclass(frozen=True)
class _Totals:
    """`units`: nodes x days from `first` on, NaN where not known. `tells`: whether a day tells of demand; not where the
    store was closed. `regions`: of each node.
    """

    nodes: tuple[Node, ...]
    regions: tuple[str, ...]
    first: date
    units: Doubles
    tells: Flags

    @classmethod
    def of(cls, known: pl.LazyFrame, *, by_department: bool) -> "_Totals":
        units = pl.col("units").cast(pl.Float64)
        daily = (
            known.with_columns(node=_node(by_department=by_department), region=pl.col("region").fill_null(""))
            .group_by(*NODE, "date")
            .agg(
                pl.col("region").first(),
                # Sorted, so that equal panels in another order give equal sums.
                units=pl.when(units.null_count() == 0).then(units.sort().sum()),
            )
            .sort(*NODE, "date")
            .collect()
        )
        first: date = daily["date"].min()  # type: ignore[assignment]
        last: date = daily["date"].max()  # type: ignore[assignment]
        of_node = daily.select(pl.struct(NODE).rle_id()).to_series().to_numpy()
        heads = daily[np.flatnonzero(np.diff(of_node, prepend=-1))]
        table = np.full((heads.height, (last - first).days + 1), np.nan)
        place = daily["date"].to_physical().to_numpy() - day_number(first)
        table[of_node, place] = daily["units"].fill_null(float("nan")).to_numpy()
        stores = heads["store_id"].to_numpy()
        tells = ~np.isnan(table)
        for store in np.unique(stores):
            own = np.flatnonzero(stores == store)
            tells[own] &= ~_closed(np.nansum(table[own], axis=0))
        nodes = tuple((str(store), node) for store, node in heads.select(NODE).iter_rows())
        return cls(nodes, tuple(heads["region"].to_list()), first, table, tells)


def _node(*, by_department: bool) -> pl.Expr:
    return pl.col("department") if by_department else pl.coalesce("category", "department")


def _categories_are_series(known: pl.LazyFrame) -> bool:
    series = known.select("store_id", "item_id", node=_node(by_department=False)).unique().collect()
    return series.select("store_id", "node").n_unique() == series.height


@dataclass(frozen=True)
class _NodeFit:
    """Normal equations of a node, its trend projected out, in units of its noise."""

    squares: Doubles
    products: Doubles


def _without_trend(totals: _Totals, number: int, design: Doubles, trend: Doubles, recency: Doubles) -> _NodeFit:
    tells = totals.tells[number]
    root = np.sqrt(recency[tells])[:, None]
    logarithm = np.log1p(np.maximum(totals.units[number, tells], 0.0))
    basis, _ = np.linalg.qr(root * trend[tells])
    x, y = root * design[tells], root[:, 0] * logarithm
    x, y = x - basis @ (basis.T @ x), y - basis @ (basis.T @ y)
    week, *_ = np.linalg.lstsq(x[:, :7], y, rcond=None)
    freedom = max(1.0, float(recency[tells].sum()) - 7 - basis.shape[1])
    noise = max(_SMALLEST_NOISE**2, float(((y - x[:, :7] @ week) ** 2).sum()) / freedom)
    return _NodeFit(x.T @ x / noise, x.T @ y / noise)


def _trend(days: int) -> Doubles:
    """A straight line with bends: days x columns, in years before the last day."""
    back = np.arange(days)[::-1] / 364.0
    bends = np.arange(BEND_DAYS, days - BEND_DAYS, BEND_DAYS) / 364.0
    return np.column_stack([np.ones(days), back, *(np.maximum(0.0, bend - back) for bend in bends)])


def _closed(units: Doubles) -> Flags:
    """Days on which a store sold next to nothing, compared with the same weekday of the weeks around."""
    days, reach = units.size, _USUAL_WEEKS // 2
    weeks = np.full((-(-days // 7) + 2 * reach, 7), np.nan)
    weeks.reshape(-1)[7 * reach : 7 * reach + days] = units
    around = np.lib.stride_tricks.sliding_window_view(weeks, _USUAL_WEEKS, axis=0)
    # Of a last week that is not complete some weekdays may have no other.
    known = ~np.isnan(around).all(axis=-1)
    usual = np.zeros(known.shape)
    usual[known] = np.nanmedian(around[known], axis=-1)
    usual = usual.reshape(-1)[:days]
    closed: Flags = (usual >= _FEWEST_USUAL_UNITS) & (units < CLOSED_SHARE * usual)
    return closed


def _always_closed(totals: _Totals, region: str, calendar: Calendar, event: str) -> bool:
    own = [number for number, of_node in enumerate(totals.regions) if of_node == region]
    days = np.array([name == event for name in calendar.events], bool)
    known = ~np.isnan(totals.units[own][:, days])
    return bool(known.any() and not (totals.tells[own][:, days] & known).any())


def _calendars(demand: pl.LazyFrame, first: date, days: int) -> dict[str, Calendar]:
    """The calendar of each region, from `first` on for so many days; days that the panel does not hold are plain."""
    facts = (
        demand.select(pl.col("region").fill_null(""), "date", "event_name", "is_payday")
        .unique(["region", "date"], keep="first")
        .collect()
    )
    calendars = {}
    for (region,), own in sorted(facts.group_by("region"), key=lambda part: str(part[0])):
        events: list[str | None] = [None] * days
        paydays = [False] * days
        for day, event, payday in own.select("date", "event_name", "is_payday").iter_rows():
            place = (day - first).days
            if 0 <= place < days:
                events[place], paydays[place] = event, bool(payday)
        calendars[str(region)] = Calendar(first, tuple(events), tuple(paydays))
    return calendars


def _shifted(flags: Flags, step: int) -> Flags:
    """Whether the day lies `step` days after one of the flagged ones."""
    moved = np.zeros_like(flags)
    if step >= 0:
        moved[step:] = flags[: flags.size - step]
    else:
        moved[:step] = flags[-step:]
    return moved
