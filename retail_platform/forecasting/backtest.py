"""How well each model would have done: forecasts from past origins, each made only from what was known there.

Here: the rolling origins, the forecasts of every model with quantiles, and their measures in all, by horizon block,
department, class and level of the hierarchy. Not here: the measures' formulas (`forecasting/metrics.py`), whether a
difference is luck (`forecasting/comparison.py`) and the decision that follows (`forecasting/training.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import QUANTILES
from retail_platform.features.classes import demand_classes
from retail_platform.features.dense import SERIES
from retail_platform.forecasting.expected import expected_units, nodes_of_series, observed_after
from retail_platform.forecasting.hierarchy import Hierarchy, node_scales
from retail_platform.forecasting.metrics import HIERARCHICAL_METRICS, all_metrics, series_scales
from retail_platform.forecasting.models import CHALLENGER, MODELS, Progress, silent
from retail_platform.forecasting.quantiles import NodeSpread, QuantileCalibrator, dispersions
from retail_platform.forecasting.statistical import require_library
from retail_platform.forecasting.training_set import HorizonBlock, horizon_blocks, name_of_block
from retail_platform.forecasting.trials import run_trials, with_choices
from retail_platform.settings import ForecastSettings

SHORTEST_TRAINING_DAYS = 28
"""Days of targets that the earliest training needs, besides the horizon's length before them for their history."""
SAME_SEASON_DAYS = 364
"""The same weekday of the same season, a year before."""


class NotEnoughHistory(Exception):
    """The panel is too short for a single backtest; the message says how many days it has and needs."""


@dataclass(frozen=True)
class Fold:
    """One rolling origin. A fold that is not `scored` only provides the first errors to learn quantiles from."""

    cutoff: date
    scored: bool


@dataclass(frozen=True)
class Backtest:
    """`forecasts`: the scored folds with quantiles, as model.backtest_forecasts without its run facts. `metrics`: long
    form (model, cutoff, segment, metric, value), the trials among them. `errors`: model, cutoff,
    store_id, item_id, horizon, mean, uncorrected_mean, dispersion and units of all folds, the unscored one included:
    what the quantiles of later folds are learned from.
    """

    folds: tuple[Fold, ...]
    forecasts: pl.DataFrame
    metrics: pl.DataFrame
    errors: pl.DataFrame


def plan_folds(demand: pl.DataFrame, settings: ForecastSettings) -> tuple[Fold, ...]:
    """The rolling origins, oldest first: `cutoffs` scored ones and one unscored before them. The last lies a horizon
    before the last known day, those before it a horizon apart; and the first a year before the last known day, so that
    it forecasts the season that is to be forecast now.

    A panel too short for a fold of a year ago has recent ones only; a short one gets fewer, at the least one, and then
    without an unscored fold before it. Raises `NotEnoughHistory` where not even that is possible.
    """
    known = pl.col("date").filter(pl.col("units").is_not_null())
    first, last = demand.select(known.min().alias("first"), known.max().alias("last")).row(0)
    horizon = settings.horizon_days
    shortest = horizon + SHORTEST_TRAINING_DAYS
    known_days = 0 if first is None else (last - first).days + 1
    possible = (known_days - shortest) // horizon
    if possible < 1:
        raise NotEnoughHistory(
            f"the demand panel holds {known_days} known days; a backtest needs {shortest + horizon}: {horizon} for the "
            f"history, {SHORTEST_TRAINING_DAYS} to learn from and {horizon} to forecast. Load earlier sales or shorten "
            "forecast.horizon_days"
        )
    recent = settings.cutoffs - 1
    year = SAME_SEASON_DAYS
    if known_days >= shortest + horizon + year and horizon * recent < year:
        steps = [(year + horizon, False), (year, True), *((horizon * step, True) for step in range(recent, 0, -1))]
    else:
        scored = max(1, min(settings.cutoffs, possible - 1))
        unscored = 1 if possible > scored else 0
        steps = [(horizon * step, step <= scored) for step in range(scored + unscored, 0, -1)]
    return tuple(Fold(last - timedelta(days=back), scored=scored) for back, scored in steps)


def run_backtest(
    demand: pl.DataFrame,
    history: pl.DataFrame,
    settings: ForecastSettings,
    progress: Progress = silent,
    *,
    models: Collection[str] | None = None,
) -> Backtest:
    """Forecast from every fold's cutoff with every model of `models`, or else of the settings, trained anew on what was
    known then. Where the settings leave the objective or the number of trees open, they are chosen by trials that end
    before the first scored fold's window begins. Raises `MissingExtra` before anything else where the library of a
    model is not installed.

    The quantiles of a fold are learned from the errors of the folds before it, whose targets all lie at or before its
    cutoff. `units` is null, and the day not scored, where the item was out of stock or not listed.
    """
    blocks = horizon_blocks(settings)
    folds = plan_folds(demand, settings)
    hierarchy, truth = Hierarchy.of(demand), observed_after(demand, folds[0].cutoff)
    models = settings.models if models is None else models
    for name in models:
        require_library(name)
    metrics: list[pl.DataFrame] = []
    # A fold that is scored must not choose what it is scored by.
    if CHALLENGER in models and not folds[0].scored:
        metrics.append(run_trials(demand, history, folds[0].cutoff, settings, progress))
        settings = with_choices(settings, metrics[0])
    errors: list[pl.DataFrame] = []
    forecasts: list[pl.DataFrame] = []
    for number, fold in enumerate(folds, start=1):
        progress(f"fold {number} of {len(folds)}: forecasting {settings.horizon_days} days after {fold.cutoff}")
        past = pl.concat(errors) if errors else None
        means = pl.concat(
            expected_units(name, demand, history, fold.cutoff, settings, progress).with_columns(
                model=pl.lit(name), cutoff=pl.lit(fold.cutoff)
            )
            for name in MODELS
            if name in models
        )
        means = means.join(truth, on=[*SERIES, "date"], how="left").join(
            dispersions(history, fold.cutoff), on=SERIES, how="left"
        )
        errors.append(means.drop("listed"))
        if fold.scored:
            by_model = means.partition_by("model", maintain_order=True)
            spreads = {str(part["model"][0]): _spreads(part, past, hierarchy, blocks) for part in by_model}
            forecast = pl.concat(spreads[str(part["model"][0])][0].apply(part).drop("listed") for part in by_model)
            nodes = {name: spread for name, (_, spread) in spreads.items()}
            forecasts.append(forecast)
            metrics.append(score(forecast, demand, hierarchy, nodes, blocks))
    return Backtest(folds, pl.concat(forecasts), pl.concat(metrics), pl.concat(errors))


def score(
    forecast: pl.DataFrame,
    demand: pl.DataFrame,
    hierarchy: Hierarchy,
    nodes: Mapping[str, NodeSpread],
    blocks: list[HorizonBlock],
) -> pl.DataFrame:
    """Every measure of one fold's forecasts: model, cutoff, segment, metric, value. Segments are the whole, horizon
    blocks, departments and classes; WRMSSE and WSPL are given for the whole and by level of the hierarchy.
    """
    cutoff: date = forecast["cutoff"].max()  # type: ignore[assignment]
    scored = (
        forecast.join(series_scales(demand, cutoff), on=SERIES, how="left")
        .join(demand_classes(demand, cutoff).select(*SERIES, "demand_class"), on=SERIES, how="left")
        .join(nodes_of_series(demand).drop("category"), on=SERIES, how="left")
    )
    keys = ["model", "cutoff", "segment"]
    segments = {
        "all": pl.lit("all"),
        "horizon": name_of_block(blocks),
        "department": pl.format("department {}", pl.col("department").fill_null("unknown")),
        "class": pl.format("class {}", pl.col("demand_class").fill_null("unknown")),
    }
    levels = pl.concat(
        node_forecasts(part, hierarchy, nodes[str(part["model"][0])], by=("model", "cutoff", "horizon"))
        for part in forecast.filter(pl.col("units").is_not_null()).partition_by("model", maintain_order=True)
    ).join(node_scales(demand, hierarchy, cutoff), on=["level", "node"], how="left")
    return pl.concat(
        [
            *(all_metrics(scored.with_columns(segment=segment), keys) for segment in segments.values()),
            all_metrics(levels.with_columns(segment=pl.lit("all")), keys, HIERARCHICAL_METRICS),
            all_metrics(levels, ["model", "cutoff", "level"], HIERARCHICAL_METRICS).select(
                "model", "cutoff", pl.format("level {}", "level").alias("segment"), "metric", "value"
            ),
        ]
    )


def node_forecasts(
    forecast: pl.DataFrame, hierarchy: Hierarchy, spread: NodeSpread, by: Sequence[str] = ("date", "horizon")
) -> pl.DataFrame:
    """Forecasts of every node, bottom-up: level, node, `by` (which must hold horizon), mean, units where the forecast
    has them, and the QUANTILES. The means add up at every level; quantiles of a node are learned from its own level's
    errors. At the level of the series themselves they are those of the forecast.
    """
    columns = ["mean", *(["units"] if "units" in forecast.columns else []), *QUANTILES]
    sums = hierarchy.sums(forecast, columns, by)
    own = pl.col("level") == (hierarchy.finest or "")
    return pl.concat([spread.apply(sums.filter(~own)), sums.filter(own)]).sort("level", "node", *by)


def node_errors(errors: pl.DataFrame, hierarchy: Hierarchy) -> pl.DataFrame:
    """What `NodeSpread.fit` learns from, out of the errors of series (store_id, item_id, cutoff, horizon, mean, units):
    level, node, cutoff, horizon, mean, units.
    """
    return hierarchy.sums(errors.filter(pl.col("units").is_not_null()), ["mean", "units"], by=("cutoff", "horizon"))


def backtest_tables(
    backtest: Backtest, *, backtest_id: str, shard: str, computed_at: datetime
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The frames of model.backtest_forecasts and model.backtest_metrics, with the facts of the run put in."""
    facts = {"backtest_id": pl.lit(backtest_id), "shard": pl.lit(shard)}
    forecasts = backtest.forecasts.with_columns(**facts)
    metrics = backtest.metrics.with_columns(**facts, computed_at=pl.lit(computed_at, pl.Datetime("us")))
    return (
        forecasts.select(TABLES["model.backtest_forecasts"].polars_schema.names()),
        metrics.select(TABLES["model.backtest_metrics"].polars_schema.names()),
    )


def _of_model(past: pl.DataFrame | None, forecast: pl.DataFrame) -> pl.DataFrame | None:
    return None if past is None else past.filter(pl.col("model") == forecast["model"][0])


def _spreads(
    forecast: pl.DataFrame, past: pl.DataFrame | None, hierarchy: Hierarchy, blocks: list[HorizonBlock]
) -> tuple[QuantileCalibrator, NodeSpread]:
    own = _of_model(past, forecast)
    of_nodes = None if own is None else node_errors(own, hierarchy)
    return QuantileCalibrator.fit(own, blocks), NodeSpread.fit(of_nodes, blocks)
