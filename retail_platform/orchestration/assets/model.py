"""Science: the backtest of every model, and the trained model that it judges.

Here: what is read, which folder a version goes to, and the row that records it. Not here: how a model learns or is
measured (`forecasting/`).
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.assets.features import forecast_version
from retail_platform.orchestration.automation import retrain
from retail_platform.orchestration.partitions import shard_of_run, shards
from retail_platform.orchestration.pictures import png
from retail_platform.orchestration.progress import with_time_left
from retail_platform.orchestration.specs import asset_facts, spec
from retail_platform.settings import Settings

_BACKTEST = ("model.backtest_forecasts", "model.backtest_metrics")
_PANEL = ("features.demand", "features.demand_history")
ERROR_COLUMNS = (
    "model",
    "cutoff",
    "store_id",
    "item_id",
    "horizon",
    "mean",
    "uncorrected_mean",
    "dispersion",
    "units",
)
_LIBRARIES = ("lightgbm", "numpy", "polars", "duckdb", "retail-platform")


def model_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    version, partitions = forecast_version(settings), shards(settings)
    panel = [name.split(".") for name in _PANEL]

    @dg.multi_asset(
        name="backtest",
        outs={
            name.split(".")[1]: dg.AssetOut.from_spec(
                spec(name, code_version=version, kinds=("lightgbm", "duckdb")).replace_attributes(
                    automation_condition=retrain
                ),
                dagster_type=dg.Any,
            )
            for name in _BACKTEST
        },
        deps=panel,
        partitions_def=partitions,
        pool="lake_model",
    )
    def backtest(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse], settings: dg.ResourceParam[Settings]
    ) -> Iterator[Any]:
        from retail_platform.forecasting.backtest import NotEnoughHistory, backtest_tables, run_backtest

        shard, now = shard_of_run(context), _now()
        demand, history = read_panel(lakehouse, shard)
        try:
            result = run_backtest(demand, history, settings.forecast, with_time_left(context.log.info))
        except NotEnoughHistory as short:
            for name in _BACKTEST:
                facts = {"missing": str(short)}
                yield dg.MaterializeResult(asset_key=name.split("."), value=TABLES[name].empty(), metadata=facts)
            return
        backtest_id = _version_name(demand, shard, context.run.run_id)
        frames = backtest_tables(result, backtest_id=backtest_id, shard=shard, computed_at=now)
        for name, frame in zip(_BACKTEST, frames, strict=True):
            yield dg.MaterializeResult(
                asset_key=name.split("."), value=frame, metadata=_backtest_metadata(demand, *frames)
            )

    @dg.asset(
        **asset_facts("model.registry", code_version=version, kinds=("lightgbm", "duckdb")),
        deps=[*panel, *(name.split(".") for name in _BACKTEST)],
        partitions_def=partitions,
        automation_condition=retrain,
    )
    def registry(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[pl.DataFrame]:
        from retail_platform.forecasting.training import beats_naive, train
        from retail_platform.lakehouse.model_store import save_model

        shard, snapshot = shard_of_run(context), lakehouse.snapshot_id()
        backtest_id, errors, metrics = read_backtest(lakehouse, shard)
        if backtest_id is None:
            nothing = "no backtest to judge a model by, so none is trained; seasonal naive is published"
            return dg.MaterializeResult(
                value=TABLES["model.registry"].empty(),
                metadata={"missing": nothing},
            )
        demand, history = read_panel(lakehouse, shard, at=snapshot)
        version_name = _version_name(demand, shard, context.run.run_id)
        gate = beats_naive(metrics)
        model = train(demand, history, errors, settings.forecast, progress=with_time_left(context.log.info))
        manifest = {
            "model_version": version_name,
            "model": model.name,
            "shard": shard,
            "parameters": settings.forecast.model_dump(mode="json"),
            "training_window": {"first_day": str(demand["date"].min()), "last_day": str(model.trained_until)},
            "series": demand.select("store_id", "item_id").n_unique(),
            "lake_snapshot": snapshot,
            "code_version": version,
            "libraries": {name: library_version(name) for name in _LIBRARIES},
            "run_id": context.run.run_id,
            "backtest": {
                "backtest_id": backtest_id,
                "wape": _number(gate.wape),
                "naive_wape": _number(gate.naive_wape),
                "verdict": gate.text,
            },
        }
        sha256 = save_model(settings.models, version_name, model.files(), manifest)
        row: dict[str, Any] = {
            "model_version": version_name,
            "shard": shard,
            "stage": "champion" if gate.passed else "rejected",
            "changed_at": _now(),
            "changed_by": f"run {context.run.run_id}",
            "reason": gate.text,
            "trained_until": model.trained_until,
            "folder": version_name,
            "manifest_sha256": sha256,
            "lake_snapshot": snapshot,
            "wape": _number(gate.wape),
            "naive_wape": _number(gate.naive_wape),
        }
        return dg.MaterializeResult(
            value=pl.DataFrame([row], schema=TABLES["model.registry"].polars_schema),
            metadata={
                "model_version": version_name,
                "stage": str(row["stage"]),
                "verdict": gate.text,
                "folder": dg.MetadataValue.path(settings.models / version_name),
                "manifest_sha256": sha256,
            },
        )

    return [backtest, registry]


@dg.asset_check(
    asset=["model", "registry"],
    description="The newest model's backtest WAPE is below seasonal naive's. Where it is not, the model is recorded as "
    "rejected and its forecasts are not published.",
)
def beats_seasonal_naive(lakehouse: dg.ResourceParam[Lakehouse]) -> dg.AssetCheckResult:
    newest = lakehouse.query(
        "SELECT shard, model_version, coalesce(wape < naive_wape, false) AS beats, reason "
        "FROM model.registry "
        "WHERE stage IN ('champion', 'rejected') "
        "QUALIFY row_number() OVER (PARTITION BY shard ORDER BY changed_at DESC) = 1"
    )
    return dg.AssetCheckResult(
        passed=newest.height > 0 and bool(newest["beats"].all()),
        # A warning, not an error: the forecast step must go on, and publish the naive forecast in the model's place.
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"newest": newest.to_dicts()},
    )


def read_panel(lakehouse: Lakehouse, shard: str, at: int | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Demand panel and history of a shard, as of a snapshot where one is named."""
    return (
        lakehouse.read("features.demand", where="shard = ?", parameters=[shard], at=at),
        lakehouse.read("features.demand_history", where="shard = ?", parameters=[shard], at=at),
    )


def newest_metrics(lakehouse: Lakehouse, shard: str) -> pl.DataFrame:
    """Metrics of the newest backtest of a shard; no row where there is none."""
    return lakehouse.query(
        "SELECT * FROM model.backtest_metrics WHERE shard = $1 AND backtest_id = ("
        "SELECT arg_max(backtest_id, computed_at) FROM model.backtest_metrics WHERE shard = $1)",
        [shard],
    )


def read_backtest(lakehouse: Lakehouse, shard: str) -> tuple[str | None, pl.DataFrame, pl.DataFrame]:
    """The newest backtest of a shard: its id, every model's errors, its metrics. The id is null where there is none."""
    metrics = newest_metrics(lakehouse, shard)
    backtest_id = None if metrics.is_empty() else str(metrics["backtest_id"][0])
    errors = lakehouse.read(
        "model.backtest_forecasts",
        columns=[*ERROR_COLUMNS],
        where="shard = ? AND backtest_id = ?",
        parameters=[shard, backtest_id or ""],
    )
    return backtest_id, errors, metrics


def _backtest_metadata(demand: pl.DataFrame, forecasts: pl.DataFrame, metrics: pl.DataFrame) -> dict[str, Any]:
    from retail_platform.forecasting.charts import backtest_chart, forecast_chart

    last = forecasts.select(pl.col("cutoff").max()).item()
    overall = metrics.filter(pl.col("segment") == "all").group_by("model", "metric").agg(pl.col("value").mean())
    table = overall.pivot("metric", index="model", values="value").sort("model")
    return {
        "backtest_id": metrics["backtest_id"][0],
        "cutoffs": [str(day) for day in metrics["cutoff"].unique().sort()],
        "accuracy": dg.MetadataValue.md(_markdown(table)),
        "chart": png(backtest_chart(metrics), "WAPE of each model at each cutoff"),
        "forecast_against_actual": png(
            forecast_chart(demand, forecasts.filter((pl.col("model") == "lightgbm") & (pl.col("cutoff") == last))),
            f"What LightGBM forecast from {last} and what was then sold, largest series",
        ),
    }


def _markdown(frame: pl.DataFrame) -> str:
    header = f"| {' | '.join(frame.columns)} |\n|{'---|' * frame.width}\n"
    rows = ("| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows())
    return header + "\n".join(rows)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _number(value: float) -> float | None:
    """A figure that is not defined, such as the WAPE of days without a sale, is none at all."""
    return value if math.isfinite(value) else None


def _version_name(demand: pl.DataFrame, shard: str, run_id: str) -> str:
    last_day = demand.filter(pl.col("units").is_not_null()).select(pl.col("date").max()).item()
    return f"{last_day}-{shard}-{run_id[:8]}"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
