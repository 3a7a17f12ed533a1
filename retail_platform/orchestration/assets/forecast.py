"""What is published: demand forecasts, and the orders that follow from them.

Here: which model is in force, what is read, and what is written together. Not here: the forecast itself
(`forecasting/`) and the order policy (`replenishment/`).
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import NAIVE, QUANTILES
from retail_platform.lakehouse import Append, Lakehouse, Provenance, ReplaceSlices, Write
from retail_platform.monitoring.alerts import alert
from retail_platform.orchestration.assets.features import forecast_version, last_known_day
from retail_platform.orchestration.assets.model import read_backtest
from retail_platform.orchestration.automation import refresh_on_new_data, refresh_once_there_is
from retail_platform.orchestration.champions import (
    in_force,
    load_version,
    other_panel,
    why_none_is_in_force,
)
from retail_platform.orchestration.io_manager import commit_metadata, shards_of_other_cuts
from retail_platform.orchestration.partitions import WHOLE_PANEL, on_every_day, shard_of_run, shards
from retail_platform.orchestration.pictures import png
from retail_platform.orchestration.simulated import is_simulated
from retail_platform.orchestration.specs import asset_facts
from retail_platform.settings import ForecastSettings, Settings

if TYPE_CHECKING:
    from retail_platform.forecasting.training import TrainedModel

RECENT_DAYS = 120
"""What a forecast reads of the panel's past, or a horizon and four weeks where that is more."""


def forecast_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    version, partitions = forecast_version(settings), shards(settings)
    replenishment = settings.replenishment.model_dump_json()

    @dg.asset(
        **asset_facts("forecast.demand", code_version=version, kinds=("lightgbm", "duckdb")),
        deps=[
            ["features", "demand"],
            ["features", "demand_history"],
            ["model", "registry"],
            # A person's decision makes no model, but another one is in force afterwards.
            ["model", "decisions"],
        ],
        partitions_def=partitions,
        automation_condition=refresh_on_new_data,
    )
    def demand(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[None]:
        from retail_platform.forecasting.training import forecast_of_nodes, make_forecast, train

        shard, now = shard_of_run(context), _now()
        origin = panel_origin(lakehouse, shard)
        model, model_version, reason, blocks = _model_in_force(lakehouse, shard)
        as_trained = settings.forecast.model_copy(update={"horizon_blocks": blocks})
        panel, history = read_for_forecast(lakehouse, shard, origin, as_trained)
        if model is None:
            _, errors, _ = read_backtest(lakehouse, shard)
            model = train(panel, history, errors, settings.forecast, model=NAIVE)
            alerts = alert(
                severity="warning",
                subject=f"forecast.demand {shard}",
                message=f"The naive forecast was published for origin {origin}: {reason}. Look at the backtest "
                "(model.backtest_metrics), mend data or features, and materialize the group model again",
                run_id=context.run.run_id,
                raised_at=now,
            )
        else:
            alerts = TABLES["monitoring.alerts"].empty()
        facts = {
            "forecast_origin": pl.lit(origin),
            "shard": pl.lit(shard),
            "model_version": pl.lit(model_version),
            "issued_at": pl.lit(now, pl.Datetime("us")),
        }
        forecast = make_forecast(model, panel, history, origin)
        nodes = forecast_of_nodes(model, panel, forecast).with_columns(**facts)
        forecast = forecast.with_columns(**facts, model=pl.lit(model.name))
        # One transaction, so that the levels add up whoever reads them.
        writes: list[Write] = [
            ReplaceSlices(
                TABLES[name],
                TABLES[name].validate(frame),
                slices_of_origin(origin, shard, shards_of_other_cuts(lakehouse, TABLES[name])),
            )
            for name, frame in (("forecast.demand", forecast), ("forecast.nodes", nodes))
        ]
        writes.append(Append(TABLES["monitoring.alerts"], alerts))
        commit = lakehouse.commit(writes, Provenance("forecast.demand", context.run.run_id, version, shard))
        context.log_event(
            dg.AssetMaterialization(
                ["forecast", "nodes"],
                metadata={"dagster/row_count": nodes.height, "levels": nodes["level"].n_unique()},
            )
        )
        if alerts.height:
            context.log_event(dg.AssetMaterialization(["monitoring", "alerts"], metadata={"raised": alerts.height}))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": forecast.height,
                "forecast_origin": str(origin),
                "model": model.name,
                "model_version": model_version,
                "series": forecast.select("store_id", "item_id").n_unique(),
                "chart": _forecast_picture(panel, forecast),
                **commit_metadata(commit),
            }
        )

    @dg.asset(
        **asset_facts("forecast.inventory_requirements", code_version=f"{version}-{_digest(replenishment)}"),
        deps=[["forecast", "demand"], on_every_day("clean.inventory"), ["clean", "items"]],
        partitions_def=partitions,
        automation_condition=refresh_once_there_is("forecast.demand"),
    )
    def inventory_requirements(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[pl.DataFrame]:
        from retail_platform.replenishment.orders import propose_orders

        shard = shard_of_run(context)
        origin = panel_origin(lakehouse, shard)
        forecast = lakehouse.read(
            "forecast.demand", where="forecast_origin = ? AND shard = ?", parameters=[origin, shard]
        )
        stock, simulated = _latest_stock(lakehouse, origin, settings.replenishment.stock_valid_days)
        items = lakehouse.read("clean.items")
        orders = propose_orders(
            forecast,
            stock if stock.height else None,
            items if items.height else None,
            settings.replenishment,
            issued_at=_now(),
            stock_is_simulated=simulated,
        )
        facts: dict[str, Any] = {
            "forecast_origin": str(origin),
            "orders_proposed": orders.filter(pl.col("order_quantity") > 0).height,
            "units_ordered": float(orders["order_quantity"].sum()),
            "stock_unknown": orders["on_hand"].null_count(),
            "stock": "simulated" if simulated else "as delivered by the feed inventory",
        }
        if stock.is_empty():
            facts["missing"] = "no stock is known: order-up-to levels are given, order quantities are not"
        return dg.MaterializeResult(value=orders, metadata=facts)

    return [demand, inventory_requirements]


def forecast_checks() -> list[dg.AssetChecksDefinition]:
    return [published_model_beats_naive, horizon_complete]


@dg.asset_check(
    asset=["forecast", "demand"],
    blocking=True,
    description="What is published comes from a model that beat seasonal naive on its backtest, or is the naive "
    "forecast and says so.",
)
def published_model_beats_naive(lakehouse: dg.ResourceParam[Lakehouse]) -> dg.AssetCheckResult:
    published = lakehouse.query(
        "WITH newest AS (SELECT model_version, arg_max(coalesce(wape < naive_wape, false), changed_at) AS beats "
        "FROM model.registry GROUP BY model_version) "
        "SELECT DISTINCT f.model, f.model_version, f.shard, coalesce(newest.beats, false) AS beats "
        "FROM forecast.demand f LEFT JOIN newest USING (model_version) "
        "WHERE f.forecast_origin = (SELECT max(forecast_origin) FROM forecast.demand) "
        "ORDER BY ALL"
    )
    wrong = published.filter(~pl.col("beats") & (pl.col("model") != NAIVE))
    return dg.AssetCheckResult(passed=wrong.is_empty(), metadata={"published": published.to_dicts()})


@dg.asset_check(
    asset=["forecast", "demand"],
    blocking=True,
    description="Every series has every day of the horizon, with ordered quantiles and nothing missing.",
)
def horizon_complete(
    context: dg.AssetCheckExecutionContext,
    lakehouse: dg.ResourceParam[Lakehouse],
    settings: dg.ResourceParam[Settings],
) -> dg.AssetCheckResult:
    # Of shards, the one that this run made: the others may still be to come.
    shard = context.run.tags.get("dagster/partition", WHOLE_PANEL)
    names = list(QUANTILES)
    crossing = " OR ".join(f"{low} > {high}" for low, high in pairwise(names))
    days = settings.forecast.horizon_days
    facts = lakehouse.query(
        f"""
        WITH latest AS (
            SELECT * FROM forecast.demand WHERE shard = $1
            AND forecast_origin = (SELECT max(forecast_origin) FROM forecast.demand WHERE shard = $1)
        ), wanted AS (
            SELECT DISTINCT store_id, item_id FROM features.demand WHERE shard = $1 AND units IS NOT NULL
        ), series AS (
            SELECT store_id, item_id, count(DISTINCT horizon) AS days FROM latest GROUP BY ALL
        )
        SELECT (SELECT count(*) FROM wanted) AS series_of_panel,
               (SELECT count(*) FROM wanted ANTI JOIN series USING (store_id, item_id)) AS series_without_forecast,
               (SELECT count(*) FROM series WHERE days <> {days}) AS series_with_other_days,
               (SELECT count(*) FROM latest WHERE {crossing}) AS rows_with_crossing_quantiles
        """,
        [shard],
    ).row(0, named=True)
    broken = facts["series_without_forecast"] + facts["series_with_other_days"] + facts["rows_with_crossing_quantiles"]
    # A shard may be empty, the whole may not.
    enough = facts["series_of_panel"] > 0 or shard != WHOLE_PANEL
    return dg.AssetCheckResult(passed=broken == 0 and enough, metadata=facts)


def panel_origin(lakehouse: Lakehouse, shard: str) -> date:
    """The last day whose sales the panel of a shard knows: what a forecast starts from.

    Not the last day of clean.sales, which may have moved on since the panel was made.
    """
    day = lakehouse.query("SELECT max(date) FROM features.demand WHERE units IS NOT NULL AND shard = ?", [shard]).item()
    return last_known_day(lakehouse) if day is None else date.fromisoformat(str(day))


def read_for_forecast(
    lakehouse: Lakehouse, shard: str, origin: date, settings: ForecastSettings
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What a forecast from `origin` reads of a shard's demand panel and history: the days to come and the last ones,
    and the as-of dates of the last weeks and of those a year before.
    """
    from retail_platform.forecasting.totals import LEVEL_DAYS
    from retail_platform.forecasting.training_set import days_for_forecast, horizon_blocks

    year_before, recent = days_for_forecast(origin, horizon_blocks(settings))
    since = origin - timedelta(days=max(RECENT_DAYS, LEVEL_DAYS, settings.horizon_days + 28))
    return (
        lakehouse.read("features.demand", where="shard = ? AND date >= ?", parameters=[shard, since]),
        lakehouse.read(
            "features.demand_history",
            where="shard = ? AND (as_of_date BETWEEN ? AND ? OR as_of_date BETWEEN ? AND ?)",
            parameters=[shard, *year_before, *recent],
        ),
    )


def slices_of_origin(origin: date, shard: str, other_shards: Sequence[str]) -> list[dict[str, date | str]]:
    """What a forecast of a shard replaces: its own rows of the origin, and those of another cut of the stores."""
    if shard == WHOLE_PANEL:
        return [{"forecast_origin": origin}]
    return [{"forecast_origin": origin, "shard": name} for name in (shard, *other_shards)]


def _model_in_force(lakehouse: Lakehouse, shard: str) -> tuple["TrainedModel | None", str, str, tuple[int, ...]]:
    """The champion, its version, nothing, and its horizon blocks, which need not be those of today's settings; or none,
    seasonal naive in its place, why, and today's blocks.
    """
    champion, blocks = in_force(lakehouse, shard), lakehouse.settings.forecast.horizon_blocks
    if champion is None:
        return None, NAIVE, why_none_is_in_force(lakehouse, shard), blocks
    model, manifest = load_version(lakehouse.settings, champion)
    other = other_panel(lakehouse.settings, manifest)
    if other:
        return None, NAIVE, other, blocks
    return model, str(champion["model_version"]), "", tuple(manifest["parameters"]["horizon_blocks"])


def _latest_stock(lakehouse: Lakehouse, origin: date, valid_days: int) -> tuple[pl.DataFrame, bool]:
    """The latest stock of each store and item that still tells the stock at the origin, and whether it is simulated."""
    stock = lakehouse.query(
        "SELECT * FROM clean.inventory WHERE as_of_date BETWEEN ? AND ? "
        "QUALIFY row_number() OVER (PARTITION BY store_id, item_id ORDER BY as_of_date DESC) = 1",
        [origin - timedelta(days=valid_days), origin],
    )
    files = lakehouse.read("raw.ingested_files", columns=["file_id", "file_name"])
    of_stock = files.filter(pl.col("file_id").is_in(stock["source_file_id"].unique().implode()))
    return stock, bool(of_stock.select(is_simulated(pl.col("file_name")).any()).item())


def _forecast_picture(panel: pl.DataFrame, forecast: pl.DataFrame) -> dg.MarkdownMetadataValue:
    from retail_platform.forecasting.charts import forecast_chart

    return png(forecast_chart(panel, forecast), "Forecast with its 90 % band after what was sold, largest series")


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
