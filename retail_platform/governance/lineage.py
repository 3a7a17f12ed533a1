"""Column lineage: from which columns of which tables each column of each table is made.

Here: the declaration for every table but the raw ones (their columns come from the source system that `FEEDS`
names), and walks up and down along it. Not here: how lineage shows in Dagster or in the catalogue, and lineage of
single rows (each clean row names its landing file and row).

Kinds of edges, after OpenLineage: DIRECT where the value is copied or computed from the other, INDIRECT where the
other decides which rows or which branch count, MASKED where the value is computed so that the other cannot be read
from it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from retail_platform.contracts import FEEDS, TABLES, Feed
from retail_platform.contracts.forecast import QUANTILES

EdgeKind = Literal["DIRECT", "INDIRECT", "MASKED"]
_STRENGTH: tuple[EdgeKind, ...] = ("DIRECT", "MASKED", "INDIRECT")


class UnknownNameError(ValueError):
    """Neither a table nor a column of one has the name; the message suggests the nearest."""


@dataclass(frozen=True)
class Source:
    """A column that another column is made from."""

    table: str
    column: str
    kind: EdgeKind = "DIRECT"


@dataclass(frozen=True)
class Edge:
    """One step of a walk: `target` is made from `source`; both are tables, or both are written table.column."""

    source: str
    target: str
    kind: EdgeKind


Columns = dict[str, tuple[Source, ...]]


def _direct(table: str, *columns: str) -> tuple[Source, ...]:
    return tuple(Source(table, column) for column in columns)


def _indirect(table: str, *columns: str) -> tuple[Source, ...]:
    return tuple(Source(table, column, "INDIRECT") for column in columns)


def _same(table: str, columns: Iterable[str]) -> Columns:
    """Columns that are taken over under their own name."""
    return {column: _direct(table, column) for column in columns}


def _clean(feed: Feed) -> Columns:
    """A clean column is its namesake of the raw table, read as its type; provenance keeps its meaning."""
    raw = feed.raw_table
    columns = _same(raw, (name for name in TABLES[feed.clean_table].polars_schema if name in feed.column_names))
    columns["source_file_id"] = _direct(raw, "file_id")
    columns["source_row_number"] = _direct(raw, "row_number")
    if feed.name == "pos_sales":
        # A receipt line without a number gets its place among its receipt's lines of the file.
        columns["line_number"] += _indirect(raw, "row_number", "store_id", "transaction_id")
        columns["customer_pseudonym"] = (Source(raw, "customer_id", "MASKED"),)
    return columns


def _of_every_feed(*columns: str) -> tuple[Source, ...]:
    return tuple(source for feed in FEEDS.values() for source in _direct(feed.raw_table, *columns))


def _set_aside() -> Columns:
    return {name: _of_every_feed(name) for name in ("file_id", "row_number", "partition_date")}


_ROWS_OF_EVERY_FEED = tuple(s for f in FEEDS.values() for s in _direct(f.raw_table, *f.column_names))
_DECIDED_BY_EVERY_FEED = tuple(s for f in FEEDS.values() for s in _indirect(f.raw_table, *f.column_names))


def _indicator() -> tuple[Source, ...]:
    table = "clean.economic_indicators"
    return _direct(table, "value") + _indirect(table, "indicator", "period_start", "published_on")


def _demand() -> Columns:
    """features.demand. Which series it holds is decided by sales, item master and store master; this shows at its
    keys, as every other column is there only for its series.
    """
    sales, items, prices, promotions = "clean.sales", "clean.items", "clean.prices", "clean.promotions"
    price_period = _indirect(prices, "valid_from", "valid_to")
    promotion_period = _indirect(promotions, "start_date", "end_date")
    event_place = _indirect("clean.calendar", "date", "region")
    weather_place = _indirect("clean.weather", "date", "region", "published_on")
    return {
        "shard": _indirect(sales, "store_id"),
        "store_id": _direct(sales, "store_id") + _indirect("clean.stores", "store_id", "closed_on"),
        "item_id": _direct(sales, "item_id")
        + _direct(items, "item_id", "category", "department")
        + _indirect(sales, "quantity", "business_date"),
        "date": _direct(sales, "business_date"),
        "department": _direct(items, "department") + _indirect(items, "category"),
        "category": _direct(items, "category"),
        "region": _direct("clean.stores", "region"),
        "units": _direct(sales, "quantity") + _indirect(sales, "business_date"),
        "listed": price_period + _indirect(prices, "price", "store_id", "item_id"),
        "in_stock": _direct("clean.inventory", "on_hand")
        + _direct(sales, "quantity")
        + _indirect("clean.inventory", "as_of_date", "store_id", "item_id"),
        "price": _direct(prices, "price") + price_period + _direct(sales, "sales_amount", "quantity"),
        "price_announced": price_period + _indirect(prices, "price", "store_id", "item_id"),
        "on_promotion": _direct(promotions, "item_id")
        + promotion_period
        + _indirect(promotions, "store_id")
        + _indirect(items, "item_id"),
        "promotion_depth": _direct(promotions, "discount_share") + promotion_period + _indirect(items, "item_id"),
        "event_name": _direct("clean.calendar", "event_name") + event_place + _indirect("clean.calendar", "event_type"),
        "event_type": _direct("clean.calendar", "event_type") + event_place + _indirect("clean.calendar", "event_name"),
        "is_payday": _direct("clean.calendar", "event_type") + event_place,
        "temperature": _direct("clean.weather", "temperature_mean") + weather_place,
        "precipitation": _direct("clean.weather", "precipitation") + weather_place,
        "consumer_prices": _indicator(),
        "unemployment": _indicator(),
    }


_OF_PRICE, _OF_PROMOTIONS, _OF_WEATHER = ("price_",), ("promotion_",), ("temperature_", "precipitation_")


def _history_column(name: str) -> tuple[Source, ...]:
    """A column of features.demand_history, by its name: what begins like none of the others is made from units, on
    the days on which the item was listed and in stock.
    """
    demand = "features.demand"
    if name == "as_of_date":
        return _direct(demand, "date")
    if name in TABLES[demand].polars_schema:
        return _direct(demand, name)
    over_days = _indirect(demand, "date")
    if name.startswith(_OF_PRICE):
        return _direct(demand, "price") + over_days
    if name.startswith(_OF_PROMOTIONS):
        return _direct(demand, "on_promotion") + over_days
    if name.startswith(_OF_WEATHER):
        return _direct(demand, name.split("_", maxsplit=1)[0]) + over_days
    peers = _indirect(demand, "department") if name.startswith("store_department_") else ()
    return _direct(demand, "units") + _indirect(demand, "listed", "in_stock") + over_days + peers


_MODEL_KEYS = ("shard", "store_id", "item_id", "as_of_date")
_KNOWN_AHEAD = (
    "store_id",
    "item_id",
    "department",
    "category",
    "date",
    "price",
    "price_announced",
    "on_promotion",
    "promotion_depth",
    "event_name",
    "event_type",
    "is_payday",
)


def _predicted() -> Columns:
    """Mean and quantiles: what the models see of the past and what is known ahead. The booster itself is no table;
    the units that it learnt from are.
    """
    history = [c for c in TABLES["features.demand_history"].polars_schema if c not in _MODEL_KEYS]
    sources = (
        _direct("features.demand_history", *history)
        + _indirect("features.demand_history", "as_of_date")
        + _direct("features.demand", *_KNOWN_AHEAD, "units")
        + _indirect("features.demand", "listed", "in_stock")
    )
    return dict.fromkeys(["mean", *QUANTILES], sources)


def _forecast() -> Columns:
    return {
        **_same("features.demand", ("shard", "store_id", "item_id", "date")),
        "horizon": _direct("features.demand", "date"),
        **_predicted(),
    }


def _registry() -> Columns:
    metrics = "model.backtest_metrics"
    chosen = _indirect(metrics, "model", "segment", "metric")
    return {
        "model_version": _direct(metrics, "backtest_id"),
        "shard": _direct(metrics, "shard"),
        "stage": _indirect(metrics, "value", "model", "segment", "metric"),
        "reason": _direct(metrics, "value") + chosen,
        "trained_until": _direct("features.demand", "date") + _indirect("features.demand", "units"),
        "wape": _direct(metrics, "value") + chosen,
        "naive_wape": _direct(metrics, "value") + chosen,
    }


def _decisions() -> Columns:
    forecasts, registry = "model.backtest_forecasts", "model.registry"
    version = _direct(registry, "model_version")
    error = _direct(forecasts, "mean", "units") + _indirect(forecasts, "store_id", "item_id", "cutoff", "date", "model")
    return {
        "shard": _direct(registry, "shard"),
        "challenger": version,
        "opponent": version + _indirect(registry, "stage"),
        "in_force": error + _indirect(registry, "stage"),
        "segment": _direct(forecasts, "horizon", "store_id") + _direct("features.demand", "department"),
        "series": _indirect(forecasts, "store_id", "item_id"),
        "cutoffs": _indirect(forecasts, "cutoff"),
        **dict.fromkeys(
            ("opponent_value", "challenger_value", "improvement", "standard_error", "guarded", "holds"), error
        ),
    }


def _backtest_metrics() -> Columns:
    forecasts = "model.backtest_forecasts"
    return {
        **_same(forecasts, ("backtest_id", "shard", "model")),
        # Trials of objectives forecast from earlier days, which are not among the forecasts.
        "cutoff": _direct(forecasts, "cutoff") + _direct("features.demand", "date"),
        "segment": _direct(forecasts, "horizon"),
        # Scaled errors are measured against the seasonal differences of the past.
        "value": _direct(forecasts, "mean", *QUANTILES, "units") + _direct("features.demand", "units"),
    }


def _inventory_requirements() -> Columns:
    forecast, items, stock = "forecast.demand", "clean.items", "clean.inventory"
    lead_time = _direct(items, "lead_time_days") + _indirect(items, "item_id", "category", "department")
    lasting = _indirect(forecast, "horizon") + _indirect(items, "lead_time_days")
    level = _direct(forecast, "mean", *QUANTILES) + lasting
    position = _direct(stock, "on_hand", "on_order")
    place = _indirect(stock, "store_id", "item_id", "as_of_date") + _indirect(items, "category", "department")
    return {
        **_same(forecast, ("store_id", "item_id", "forecast_origin", "shard", "model_version")),
        "protection_days": lead_time,
        "lead_time_days": lead_time,
        "expected_demand": _direct(forecast, "mean") + lasting,
        "order_up_to_level": level,
        "safety_stock": level,
        "on_hand": _direct(stock, "on_hand") + place,
        "on_order": _direct(stock, "on_order") + place,
        "case_pack": _direct(items, "case_pack") + _indirect(items, "item_id"),
        "order_quantity": level + position + _direct(items, "case_pack"),
        "stock_as_of": _direct(stock, "as_of_date") + _indirect(stock, "store_id", "item_id"),
        "stock_is_simulated": _indirect(stock, "on_hand"),
    }


def _nodes() -> Columns:
    forecast, demand = "forecast.demand", "features.demand"
    spread = _direct(forecast, "mean") + _indirect("model.backtest_forecasts", "mean", "units", "horizon")
    return {
        **_same(forecast, ("forecast_origin", "shard", "date", "horizon", "mean", "model_version", "issued_at")),
        "node": _direct(demand, "store_id", "item_id", "region", "department", "category"),
        **dict.fromkeys(QUANTILES, spread),
    }


def _data_drift() -> Columns:
    demand = "features.demand"
    measured = (
        "units",
        "listed",
        "in_stock",
        "price",
        "on_promotion",
        "promotion_depth",
        "temperature",
        "precipitation",
    )
    distance = _direct(demand, *measured) + _indirect(demand, "store_id", "item_id", "date")
    bounds = ("reference_start", "reference_end", "current_start", "current_end")
    return {
        "value": distance,
        "drifted": distance,
        "note": _direct(demand, *measured, "store_id", "item_id"),
        **dict.fromkeys(bounds, _direct(demand, "date") + _indirect(demand, "units")),
    }


def _without_repetition(columns: Columns) -> Columns:
    return {name: tuple(dict.fromkeys(sources)) for name, sources in columns.items()}


COLUMN_LINEAGE: dict[str, Columns] = {
    table: _without_repetition(columns)
    for table, columns in {
        **{feed.clean_table: _clean(feed) for feed in FEEDS.values()},
        "quarantine.rejected_rows": _set_aside() | {"reasons": _DECIDED_BY_EVERY_FEED, "row_json": _ROWS_OF_EVERY_FEED},
        "quarantine.duplicate_rows": _set_aside()
        | {
            "kept_file_id": _of_every_feed("file_id"),
            "kept_row_number": _of_every_feed("row_number"),
            "kind": _DECIDED_BY_EVERY_FEED,
        },
        "quarantine.withheld_days": {
            "partition_date": _of_every_feed("partition_date"),
            **dict.fromkeys(("arrived", "rejected", "waived", "reasons"), _DECIDED_BY_EVERY_FEED),
        },
        "quarantine.waivers": _same("quarantine.rejected_rows", ("feed", "file_id", "row_number", "partition_date"))
        | {"audit_id": _direct("governance.audit_log", "audit_id")},
        "features.demand": _demand(),
        "features.demand_history": {c: _history_column(c) for c in TABLES["features.demand_history"].polars_schema},
        "model.backtest_forecasts": _forecast()
        | {
            "units": _direct("features.demand", "units"),
            "cutoff": _direct("features.demand_history", "as_of_date"),
            "uncorrected_mean": _predicted()["mean"],
            "dispersion": _direct("features.demand", "units") + _indirect("features.demand", "listed", "in_stock"),
        },
        "model.backtest_metrics": _backtest_metrics(),
        "model.registry": _registry(),
        "model.decisions": _decisions(),
        "forecast.demand": _forecast()
        | {
            "forecast_origin": _direct("features.demand_history", "as_of_date"),
            "model": _indirect("model.registry", "stage", "wape", "naive_wape"),
            "model_version": _direct("model.registry", "model_version") + _indirect("model.registry", "stage"),
        },
        "forecast.nodes": _nodes(),
        "forecast.inventory_requirements": _inventory_requirements(),
        "monitoring.data_drift": _data_drift(),
        "monitoring.alerts": dict.fromkeys(
            ("severity", "subject", "message"),
            _indirect("monitoring.data_drift", "drifted") + _indirect("forecast.demand", "issued_at"),
        ),
    }.items()
}
"""Table -> column -> the columns that it is made from."""

RUN_FACTS: dict[str, dict[str, str]] = {
    "quarantine.rejected_rows": {"feed": "Name of the feed that is being cleaned", "rejected_at": "Clock of the run"},
    "quarantine.duplicate_rows": {"feed": "Name of the feed that is being cleaned"},
    "quarantine.withheld_days": {
        "feed": "Name of the feed that is being cleaned",
        "reject_budget": "Setting",
        "feed_settings": "Settings",
        "lake_snapshot": "Snapshot that the run read",
        "run_id": "Run at work",
        "withheld_at": "Clock of the run",
    },
    "governance.audit_log": {
        "audit_id": "Made at random",
        "decided_at": "Clock",
        "who": "Person at work",
        "action": "Command that the person gave",
        "subject": "What the command names",
        "reason": "Words of the person",
        "details": "Words of the command, and how many rows it concerned",
        "run_id": "Run that the command started",
    },
    "governance.commits": dict.fromkeys(TABLES["governance.commits"].polars_schema, "Catalog of the lake"),
    "model.backtest_forecasts": {
        "backtest_id": "Name that the training run gives the version",
        "model": "Name of the model that is being judged",
    },
    "model.backtest_metrics": {"metric": "Name of the metric", "computed_at": "Clock of the run"},
    "model.registry": {
        "changed_at": "Clock of the run",
        "changed_by": "Run or person at work",
        "folder": "Where the run wrote the version",
        "manifest_sha256": "Hash of a file that the run wrote",
        "lake_snapshot": "Snapshot that the run read",
    },
    "model.decisions": {
        "decision_id": "Name of the version or of the entry in the audit log",
        "decided_at": "Clock of the run",
        "decided_by": "Run or person at work",
        "action": "What was done: training, or the command of a person",
        "metric": "Name of the metric",
    },
    "forecast.demand": {"issued_at": "Clock of the run"},
    "forecast.nodes": {"level": "Name of the level"},
    "forecast.inventory_requirements": {"service_level": "Setting", "issued_at": "Clock of the run"},
    "monitoring.data_drift": {
        "run_id": "Run at work",
        "table_name": "Name of the table that is measured",
        "column_name": "Name of the column that is measured",
        "metric": "Name of the distance",
        "threshold": "Setting",
        "measured_at": "Clock of the run",
    },
    "storage.maintenance": dict.fromkeys(
        TABLES["storage.maintenance"].polars_schema, "Counted by the maintenance itself"
    ),
    "monitoring.alerts": {
        "alert_id": "Hash of subject, message and run",
        "raised_at": "Clock of the run",
        "run_id": "Run at work",
    },
}
"""Table -> column -> why it is made from no other column: the run itself, a setting or a name."""


def column_lineage(table: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """The columns of `table` with the (table, column) pairs that each is made from, of any kind; empty for raw."""
    return {
        column: tuple((source.table, source.column) for source in sources)
        for column, sources in COLUMN_LINEAGE.get(table, {}).items()
    }


def upstream(name: str) -> list[Edge]:
    """Every edge that leads to `name`, a table or table.column, nearest first. Raises `UnknownNameError`."""
    return _walk(name, forward=False)


def downstream(name: str) -> list[Edge]:
    """Every edge that leads away from `name`, a table or table.column, nearest first. Raises `UnknownNameError`."""
    return _walk(name, forward=True)


def _walk(name: str, *, forward: bool) -> list[Edge]:
    edges = _table_edges() if _is_table(name) else _column_edges()
    steps: dict[str, list[Edge]] = {}
    for edge in edges:
        steps.setdefault(edge.source if forward else edge.target, []).append(edge)
    found: list[Edge] = []
    seen, queue = {name}, [name]
    while queue:
        for edge in steps.get(queue.pop(0), []):
            found.append(edge)
            other = edge.target if forward else edge.source
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return found


def _is_table(name: str) -> bool:
    if name in TABLES:
        return True
    table, _, column = name.rpartition(".")
    if table in TABLES and column in TABLES[table].polars_schema:
        return False
    known = [f"{table}.{c}" for c in TABLES[table].polars_schema] if table in TABLES else list(TABLES)
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    raise UnknownNameError(f"{name} is neither a table nor a column written table.column; {hint}")


def _column_edges() -> list[Edge]:
    return [
        Edge(f"{source.table}.{source.column}", f"{table}.{column}", source.kind)
        for table, columns in COLUMN_LINEAGE.items()
        for column, sources in columns.items()
        for source in sources
    ]


def _table_edges() -> list[Edge]:
    """Edges between tables, each of the strongest kind among its columns."""
    kinds: dict[tuple[str, str], set[EdgeKind]] = {}
    for table, columns in COLUMN_LINEAGE.items():
        for sources in columns.values():
            for source in sources:
                kinds.setdefault((source.table, table), set()).add(source.kind)
    return [Edge(*tables, min(found, key=_STRENGTH.index)) for tables, found in kinds.items()]
