"""Gold for science: the demand panel and the as-of history, by group of stores."""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.features.demand import build_demand_panel, selection_rule
from retail_platform.features.history import build_history
from retail_platform.features.reporting import READ_DAYS, last_reported_day, late_stores
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.automation import refresh_on_new_data, refresh_once_there_is
from retail_platform.orchestration.partitions import WHOLE_PANEL, on_every_day, shard_of_run, shards
from retail_platform.orchestration.specs import asset_facts
from retail_platform.settings import Settings

OPTIONAL_TABLES = ("items", "stores", "prices", "promotions", "calendar", "weather", "economic_indicators", "inventory")

_SHOWN_STORES = 20


def forecast_version(settings: Settings) -> str:
    """Code version of everything that the forecast settings shape: other settings, other version."""
    text = json.dumps([settings.forecast.model_dump(mode="json"), settings.country], sort_keys=True)
    return f"4-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def feature_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    version, partitions = forecast_version(settings), shards(settings)

    @dg.asset(
        **asset_facts("features.demand", code_version=version),
        deps=[
            on_every_day("clean.sales"),
            on_every_day("clean.inventory"),
            *(["clean", name] for name in OPTIONAL_TABLES if name != "inventory"),
        ],
        partitions_def=partitions,
        automation_condition=refresh_once_there_is("clean.sales"),
    )
    def demand(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[pl.DataFrame]:
        tables = {name: lakehouse.read(f"clean.{name}") for name in OPTIONAL_TABLES}
        missing = [name for name, frame in tables.items() if frame.is_empty()]
        selling_days = read_selling_days(lakehouse)
        last_day = last_known_day(lakehouse, selling_days)
        late = late_stores(selling_days, last_day)
        panel = build_demand_panel(
            _daily_sales(lakehouse),
            tables.pop("items"),
            tables.pop("stores"),
            last_date=last_day,
            settings=settings.forecast,
            shard=shard_of_run(context),
            late_stores=late,
            **{name: None if frame.is_empty() else frame for name, frame in tables.items()},
        )
        # A shard may be empty, since stores are cut into shards by their names; the whole may not.
        if panel.frame.is_empty() and shard_of_run(context) == WHOLE_PANEL:
            raise dg.Failure(
                f"none of the {panel.series.height} candidate series is to be forecast: "
                f"{_reasons(panel.series)}; lower forecast.minimum_selling_days or look at clean.items",
                allow_retries=False,
            )
        facts = _panel_metadata(panel.series, missing, settings) | _reporting(selling_days, last_day, late)
        return dg.MaterializeResult(value=panel.frame, metadata=facts)

    @dg.asset(
        **asset_facts("features.demand_history", code_version=version),
        ins={"demand": dg.AssetIn(["features", "demand"])},
        partitions_def=partitions,
        automation_condition=refresh_on_new_data,
    )
    def demand_history(demand: pl.DataFrame) -> dg.MaterializeResult[pl.DataFrame]:
        history = build_history(demand)
        return dg.MaterializeResult(value=history, metadata={"statistics": history.width})

    return [demand, demand_history]


@dg.asset_check(
    asset=["features", "demand"],
    description="Every store that sells daily has delivered its sales up to the last known day, and no sales are dated "
    "ahead of it. Days that have not arrived are unknown in the panel, not zero.",
)
def every_store_delivered(lakehouse: dg.ResourceParam[Lakehouse]) -> dg.AssetCheckResult:
    selling_days = read_selling_days(lakehouse)
    last_day = last_known_day(lakehouse, selling_days)
    late = late_stores(selling_days, last_day)
    ahead = selling_days.filter(pl.col("business_date") > last_day)
    return dg.AssetCheckResult(
        passed=late.is_empty() and ahead.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata=_reporting(selling_days, last_day, late),
    )


def read_selling_days(lakehouse: Lakehouse) -> pl.DataFrame:
    """Stores and the days on which they sold, as far back as tells which of them are late."""
    return lakehouse.query(
        "SELECT DISTINCT store_id, business_date FROM clean.sales "
        f"WHERE business_date > (SELECT max(business_date) FROM clean.sales) - {READ_DAYS}"
    )


def last_known_day(lakehouse: Lakehouse, selling_days: pl.DataFrame | None = None) -> date:
    """The last business day of which enough stores have delivered their sales, which every forecast starts from.

    Raises `dg.Failure` where there are no sales.
    """
    day = last_reported_day(read_selling_days(lakehouse) if selling_days is None else selling_days)
    if day is None:
        raise dg.Failure(
            "clean.sales is empty, so that there is nothing to forecast; drop point-of-sale files into "
            f"{lakehouse.settings.landing / 'pos_sales'} and materialize the groups raw and clean",
            allow_retries=False,
        )
    return day


def _daily_sales(lakehouse: Lakehouse) -> pl.DataFrame:
    """Sales by store, item and day, lines with and without an amount apart, summed where they lie."""
    return lakehouse.query(
        "SELECT business_date, store_id, item_id, sum(quantity) AS quantity, sum(sales_amount) AS sales_amount "
        "FROM clean.sales GROUP BY business_date, store_id, item_id, sales_amount IS NULL"
    )


def _reporting(selling_days: pl.DataFrame, last_day: date, late: pl.DataFrame) -> dict[str, Any]:
    """The last known day, the stores that are behind it, and what is dated ahead of it."""
    facts: dict[str, Any] = {"last_known_day": str(last_day)}
    if late.height:
        facts["late_stores"] = {store: f"known until {day}" for store, day in late.head(_SHOWN_STORES).iter_rows()}
        facts["late_stores_count"] = late.height
    ahead = selling_days.filter(pl.col("business_date") > last_day)
    if ahead.height:
        latest = ahead.select(pl.col("business_date").max()).item()
        facts["sales_not_used_yet"] = (
            f"{ahead['store_id'].n_unique()} stores have sales after {last_day}, up to {latest}; they are used once "
            "at least half of the usual number of stores has"
        )
    return facts


def _panel_metadata(panel_series: pl.DataFrame, missing: Sequence[str], settings: Settings) -> dict[str, Any]:
    left_out = panel_series.filter(pl.col("reason").is_not_null())
    rule = settings.forecast
    facts: dict[str, Any] = {
        "item_level": rule.item_level,
        "series_forecast": panel_series.height - left_out.height,
        "series_left_out": left_out.height,
        "reasons_left_out": _reasons(panel_series),
        "rule": selection_rule(rule),
    }
    if missing:
        facts["missing"] = f"computed without {', '.join(missing)}"
    return facts


def _reasons(panel_series: pl.DataFrame) -> dict[str, int]:
    """How many series were left out for which reason, whatever their own number of selling days."""
    reason = pl.col("reason").drop_nulls().str.replace(r"^sold on \d+ of", "sold on too few of")
    return dict(panel_series.select(reason.value_counts(sort=True).struct.unnest()).head(20).iter_rows())
