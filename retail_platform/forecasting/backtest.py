"""How well each model would have done: forecasts from past origins, each made only from what was known there.

Here: the rolling origins, the forecasts of every model with quantiles, and their measures. Not here: the measures'
formulas (`forecasting/metrics.py`) and the decision that follows (`forecasting/training.py`).
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.dense import SERIES
from retail_platform.features.history import observed_units
from retail_platform.forecasting.metrics import all_metrics, series_scales
from retail_platform.forecasting.models import MODELS, Progress, silent
from retail_platform.forecasting.quantiles import QuantileCalibrator
from retail_platform.forecasting.training_set import HorizonBlock, horizon_blocks
from retail_platform.settings import ForecastSettings

SHORTEST_TRAINING_DAYS = 28
"""Days of targets that the earliest training needs, besides the horizon's length before them for their history."""


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
    form (model, cutoff, segment, metric, value). `errors`: model, cutoff, horizon, mean, units of all folds, the
    unscored one included: what the quantiles of later folds are learned from.
    """

    folds: tuple[Fold, ...]
    forecasts: pl.DataFrame
    metrics: pl.DataFrame
    errors: pl.DataFrame


def plan_folds(demand: pl.DataFrame, settings: ForecastSettings) -> tuple[Fold, ...]:
    """The rolling origins, oldest first: `cutoffs` scored ones, each a horizon apart, the last a horizon before the
    last known day; and one unscored before them.

    A short panel gets fewer scored folds, at the least one, and then without an unscored fold before it. Raises
    `NotEnoughHistory` where not even that is possible.
    """
    days = demand.filter(pl.col("units").is_not_null()).select(first=pl.col("date").min(), last=pl.col("date").max())
    first, last = days.row(0)
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
    scored = max(1, min(settings.cutoffs, possible - 1))
    unscored = 1 if possible > scored else 0
    steps = range(scored + unscored, 0, -1)
    return tuple(Fold(last - timedelta(days=horizon * step), scored=step <= scored) for step in steps)


def run_backtest(
    demand: pl.DataFrame, history: pl.DataFrame, settings: ForecastSettings, progress: Progress = silent
) -> Backtest:
    """Forecast from every fold's cutoff with every model, trained anew on what was known then.

    The quantiles of a fold are learned from the errors of the folds before it, whose targets all lie at or before its
    cutoff. `units` is null, and the day not scored, where the item was out of stock or not listed.
    """
    blocks = horizon_blocks(settings)
    truth = demand.select(*SERIES, "date", units=observed_units().cast(pl.Float64))
    folds = plan_folds(demand, settings)
    errors: list[pl.DataFrame] = []
    forecasts: list[pl.DataFrame] = []
    metrics: list[pl.DataFrame] = []
    for number, fold in enumerate(folds, start=1):
        progress(f"fold {number} of {len(folds)}: forecasting {settings.horizon_days} days after {fold.cutoff}")
        past = pl.concat(errors) if errors else None
        mean = _means(demand, history, fold.cutoff, settings, progress).join(truth, on=[*SERIES, "date"], how="left")
        errors.append(mean.select("model", "cutoff", "horizon", "mean", "units"))
        if fold.scored:
            forecast = pl.concat(
                _with_quantiles(part, past, blocks) for part in mean.partition_by("model", maintain_order=True)
            )
            forecasts.append(forecast)
            metrics.append(score(forecast, demand, blocks))
    return Backtest(folds, pl.concat(forecasts), pl.concat(metrics), pl.concat(errors))


def score(forecast: pl.DataFrame, demand: pl.DataFrame, blocks: list[HorizonBlock]) -> pl.DataFrame:
    """Every measure of one fold's forecasts, in all and by horizon block: model, cutoff, segment, metric, value."""
    cutoff: date = forecast["cutoff"].max()  # type: ignore[assignment]
    scored = forecast.join(series_scales(demand, cutoff), on=SERIES, how="left")
    keys = ["model", "cutoff", "segment"]
    block = pl.coalesce(
        pl.when(pl.col("horizon") <= b.last).then(pl.lit(f"horizon {b.first}-{b.last}")) for b in blocks
    )
    return pl.concat(all_metrics(scored.with_columns(segment=segment), keys) for segment in (pl.lit("all"), block))


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


def _means(
    demand: pl.DataFrame, history: pl.DataFrame, cutoff: date, settings: ForecastSettings, progress: Progress
) -> pl.DataFrame:
    """Mean forecasts of every model from one cutoff."""
    return pl.concat(
        fit(demand, history, cutoff, settings, progress)
        .predict_mean(demand, history, cutoff)
        .with_columns(model=pl.lit(name), cutoff=pl.lit(cutoff))
        for name, fit in MODELS.items()
    )


def _with_quantiles(forecast: pl.DataFrame, past: pl.DataFrame | None, blocks: list[HorizonBlock]) -> pl.DataFrame:
    own = None if past is None else past.filter(pl.col("model") == forecast["model"][0])
    return QuantileCalibrator.fit(own, blocks).apply(forecast).drop("listed")
