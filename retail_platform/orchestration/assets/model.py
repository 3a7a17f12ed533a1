"""Science: the backtest of every model, and the trained model that it judges.

Here: what is read, which folder a version goes to, and the row that records it. Not here: how a model learns or is
measured (`forecasting/`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import QUANTILES
from retail_platform.features.history import known_until
from retail_platform.lakehouse import Commit, Lakehouse
from retail_platform.orchestration.assets.features import forecast_version
from retail_platform.orchestration.automation import retrain
from retail_platform.orchestration.cards import HTML, MARKDOWN, card_files, show_card
from retail_platform.orchestration.champions import (
    REGISTRY,
    Candidate,
    Evidence,
    Judgement,
    decide,
)
from retail_platform.orchestration.io_manager import commit_metadata
from retail_platform.orchestration.partitions import shard_of_run, shards
from retail_platform.orchestration.pictures import png
from retail_platform.orchestration.progress import with_time_left
from retail_platform.orchestration.reproduction import manifest_of
from retail_platform.orchestration.specs import asset_facts, spec
from retail_platform.settings import Settings

if TYPE_CHECKING:
    from retail_platform.forecasting.models import Progress
    from retail_platform.forecasting.training import Gate

_BACKTEST = ("model.backtest_forecasts", "model.backtest_metrics")
_ETS = "auto_ets"
_PANEL = ("features.demand", "features.demand_history")


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
        from retail_platform.forecasting.models import NothingToLearn
        from retail_platform.forecasting.statistical import MissingExtra

        shard, now = shard_of_run(context), _now()
        demand, history = read_panel(lakehouse, shard)
        try:
            result = run_backtest(demand, history, settings.forecast, with_time_left(context.log.info))
        except MissingExtra as missing:
            raise dg.Failure(str(missing), allow_retries=False) from None
        except (NotEnoughHistory, NothingToLearn) as short:
            for name in _BACKTEST:
                facts = {"missing": str(short)}
                yield dg.MaterializeResult(asset_key=name.split("."), value=TABLES[name].empty(), metadata=facts)
            return
        # Gigabytes where there are thousands of series, which the writing needs for itself.
        del history
        backtest_id = _version_name(demand, shard, context.run.run_id)
        frames = backtest_tables(result, backtest_id=backtest_id, shard=shard, computed_at=now)
        facts = _backtest_metadata(demand, *frames)
        for name, frame in zip(_BACKTEST, frames, strict=True):
            yield dg.MaterializeResult(asset_key=name.split("."), value=frame, metadata=facts)

    @dg.asset(
        **asset_facts("model.registry", code_version=version, kinds=("lightgbm", "duckdb")),
        deps=[*panel, *(name.split(".") for name in _BACKTEST)],
        partitions_def=partitions,
        automation_condition=retrain,
    )
    def registry(
        context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse], settings: dg.ResourceParam[Settings]
    ) -> dg.MaterializeResult[Any]:
        shard, run_id = shard_of_run(context), context.run.run_id
        made = train_version(lakehouse, shard, run_id=run_id, progress=with_time_left(context.log.info))
        if made is None:
            nothing = "no backtest to judge a model by, so none is trained; seasonal naive is published"
            return dg.MaterializeResult(
                value=REGISTRY.empty(),
                metadata={"missing": nothing},
            )
        decision = _decision_metadata(made.judgement)
        context.log_event(dg.AssetMaterialization(["model", "decisions"], metadata=decision))
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": made.commit.rows[REGISTRY.name],
                "model_version": made.version,
                "verdict": made.gate.text,
                "folder": dg.MetadataValue.path(settings.models / made.version),
                "card_page": dg.MetadataValue.path(settings.models / made.version / HTML),
                "card": dg.MetadataValue.md((settings.models / made.version / MARKDOWN).read_text(encoding="utf-8")),
                "manifest_sha256": made.manifest_sha256,
                **decision,
                **commit_metadata(made.commit),
            },
        )

    return [backtest, registry]


@dataclass(frozen=True)
class TrainedVersion:
    """A version that was trained, kept and judged."""

    version: str
    manifest_sha256: str
    gate: "Gate"
    judgement: Judgement
    commit: Commit


def train_version(lakehouse: Lakehouse, shard: str, *, run_id: str, progress: "Progress") -> TrainedVersion | None:
    """Train on everything that the panel of a shard knows, keep the version, and decide whether it is in force; null
    where there is no backtest to judge it by.
    """
    from retail_platform.forecasting.training import beats_naive, train
    from retail_platform.forecasting.trials import with_choices
    from retail_platform.lakehouse.model_store import save_model

    settings, snapshot = lakehouse.settings, lakehouse.snapshot_id()
    backtest_id, errors, metrics = read_backtest(lakehouse, shard)
    if backtest_id is None:
        return None
    demand, history = read_panel(lakehouse, shard, at=snapshot)
    version = _version_name(demand, shard, run_id)
    gate = beats_naive(metrics)
    parameters = with_choices(settings.forecast, metrics)
    model = train(demand, history, errors, parameters, progress=progress)
    manifest = manifest_of(
        model,
        demand,
        settings,
        parameters=parameters,
        version=version,
        shard=shard,
        backtest_id=backtest_id,
        gate=gate,
        lake_snapshot=snapshot,
        run_id=run_id,
    )
    evidence = Evidence(demand, history, errors, metrics)
    files = {**model.files(), **card_files(lakehouse, model, evidence, manifest, gate)}
    sha256 = save_model(settings.models, version, files, manifest)
    judgement, commit = decide(
        lakehouse,
        Candidate(version, shard, manifest["recipe"], gate, model.trained_until, sha256, snapshot),
        evidence,
        run_id=run_id,
        progress=progress,
    )
    if judgement.promoted:
        show_card(settings, version, shard)
    return TrainedVersion(version, sha256, gate, judgement, commit)


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
    """Demand panel and history of a shard, as of a snapshot where one is named, in the columns that science reads: a
    panel of thousands of series fills gigabytes.
    """

    def read(name: str, *not_read: str) -> pl.DataFrame:
        columns = [column for column in TABLES[name].polars_schema if column not in ("shard", *not_read)]
        return lakehouse.read(name, columns=columns, where="shard = ?", parameters=[shard], at=at)

    # Weather and the economy are known of the past alone, which the history tells.
    ahead = ("temperature", "precipitation", "consumer_prices", "unemployment")
    return read("features.demand", *ahead), read("features.demand_history")


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
    return backtest_id, read_backtest_errors(lakehouse, backtest_id or ""), metrics


def read_backtest_errors(lakehouse: Lakehouse, backtest_id: str, at: int | None = None) -> pl.DataFrame:
    """What every model forecast in a backtest, beside what was sold; in an order that no compaction changes."""
    keys = ["model", "cutoff", "store_id", "item_id", "date"]
    left_out = {"backtest_id", "shard", *QUANTILES}
    return lakehouse.read(
        "model.backtest_forecasts",
        columns=[name for name in TABLES["model.backtest_forecasts"].polars_schema if name not in left_out],
        where="backtest_id = ?",
        parameters=[backtest_id],
        at=at,
    ).sort(keys)


def _decision_metadata(judgement: Judgement) -> dict[str, Any]:
    """What was decided, in words and as a table of the figures behind it."""
    figures = [frame.with_columns(opponent=pl.lit(opponent)) for opponent, frame in judgement.figures.items()]
    shown = pl.concat(figures).select("opponent", pl.exclude("opponent", "series", "cutoffs"))
    return {
        "decision": judgement.reason,
        "promoted": judgement.promoted,
        "figures": dg.MetadataValue.md(_markdown(shown)),
    }


def _backtest_metadata(demand: pl.DataFrame, forecasts: pl.DataFrame, metrics: pl.DataFrame) -> dict[str, Any]:
    from retail_platform.forecasting.charts import backtest_chart, forecast_chart
    from retail_platform.forecasting.comparison import value_added
    from retail_platform.forecasting.trials import OBJECTIVE_TRIAL, TREES_TRIAL, trials, without_trials

    tried = {
        "objectives_tried": trials(metrics, OBJECTIVE_TRIAL),
        "numbers_of_trees_tried": trials(metrics, TREES_TRIAL),
    }
    metrics = without_trials(metrics)
    last = forecasts.select(pl.col("cutoff").max()).item()
    overall = metrics.filter(pl.col("segment") == "all").group_by("model", "metric").agg(pl.col("value").mean())
    table = overall.pivot("metric", index="model", values="value").sort("model")
    return {
        "backtest_id": metrics["backtest_id"][0],
        "cutoffs": [str(day) for day in metrics["cutoff"].unique().sort()],
        "accuracy": dg.MetadataValue.md(_markdown(table)),
        "value_added": dg.MetadataValue.md(_markdown(value_added(metrics))),
        **(
            {"value_added_over_auto_ets": dg.MetadataValue.md(_markdown(value_added(metrics, baseline=_ETS)))}
            if _ETS in metrics["model"]
            else {}
        ),
        **{name: dg.MetadataValue.md(_markdown(table)) for name, table in tried.items() if table.height},
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
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _version_name(demand: pl.DataFrame, shard: str, run_id: str) -> str:
    return f"{known_until(demand)}-{shard}-{run_id[:8]}"


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
