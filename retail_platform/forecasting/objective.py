"""Which objective the mean model minimises on this panel: tried on windows before all that a backtest scores.

Here: the candidates, their trial, and the choice that follows. Not here: what an objective is
(`forecasting/models.py`).

A trial is a small training, of one horizon block and few trees: it has to rank the objectives, not to forecast. Its
figures go into the metrics of the backtest, where everybody can read why a model learned as it did.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import polars as pl

from retail_platform.features.dense import SERIES
from retail_platform.forecasting.expected import align, observed_after, totals_for
from retail_platform.forecasting.hierarchy import Hierarchy, node_scales
from retail_platform.forecasting.metrics import wrmsse
from retail_platform.forecasting.models import CHALLENGER, DEFAULT_OBJECTIVE, MODELS, NothingToLearn, Progress, silent
from retail_platform.settings import ForecastSettings

METRIC = "wrmsse"
TRIAL = "objective "
"""Segments of a backtest's metrics that begin so are trials, and say nothing of how good a published model is."""

CANDIDATES: dict[str, dict[str, Any]] = {
    DEFAULT_OBJECTIVE: {"objective": DEFAULT_OBJECTIVE},
    "tweedie 1.5": {"objective": "tweedie", "tweedie_variance_power": 1.5},
    "poisson": {"objective": "poisson"},
    "l2": {"objective": "l2"},
    "log_l1": {"objective": "log_l1"},
}
"""Objectives by name, as changes of the settings. The first, with the power of the settings, is taken where nothing is
clearly better."""

WINDOWS = 2
CLEARLY_BETTER = 0.99
"""An objective takes the first one's place with a WRMSSE below this share of it: less is chance."""
FEWEST_TRAINING_DAYS = 56
TRIAL_ROWS, TRIAL_TREES, TRIAL_LEARNING_RATE = 60_000, 60, 0.1


def try_objectives(
    demand: pl.DataFrame,
    history: pl.DataFrame,
    last_cutoff: date,
    settings: ForecastSettings,
    progress: Progress = silent,
) -> pl.DataFrame:
    """WRMSSE of each candidate, mean of the levels, in the `WINDOWS` windows a horizon apart of which the last begins
    at `last_cutoff`: model, cutoff, segment, metric, value. No row where the panel leaves the first of them fewer than
    `FEWEST_TRAINING_DAYS` to learn from, or nothing was sold on these: neither one window nor a short training decides.
    """
    schema = {"model": pl.String, "cutoff": pl.Date, "segment": pl.String, "metric": pl.String, "value": pl.Float64}
    cutoffs = [last_cutoff - timedelta(days=settings.horizon_days * step) for step in reversed(range(WINDOWS))]
    first_day: date | None = demand["date"].min()  # type: ignore[assignment]
    if first_day is None or (cutoffs[0] - first_day).days < settings.horizon_days + FEWEST_TRAINING_DAYS:
        return pl.DataFrame(schema=schema)
    small = settings.model_copy(
        update={
            "horizon_blocks": (settings.horizon_days,),
            "training_rows": min(settings.training_rows, TRIAL_ROWS),
            "trees": min(settings.trees, TRIAL_TREES),
            "learning_rate": max(settings.learning_rate, TRIAL_LEARNING_RATE),
        }
    )
    hierarchy, truth = Hierarchy.of(demand), observed_after(demand, cutoffs[0])
    rows: list[tuple[str, date, str, str, float | None]] = []
    try:
        for cutoff in cutoffs:
            progress(f"trying {len(CANDIDATES)} objectives on the {settings.horizon_days} days after {cutoff}")
            scales = node_scales(demand, hierarchy, cutoff)
            for name, forecast in _forecasts(demand, history, cutoff, small):
                scored = forecast.join(truth, on=[*SERIES, "date"]).filter(pl.col("units").is_not_null())
                levels = wrmsse(hierarchy.sums(scored, ["mean", "units"]).join(scales, on=["level", "node"]), ["level"])
                value = levels.select(pl.col("value").mean()).item()
                rows.append((CHALLENGER, cutoff, TRIAL + name, METRIC, value))
    except NothingToLearn:
        rows = []
    return pl.DataFrame(rows, schema=schema, orient="row")


def with_chosen_objective(settings: ForecastSettings, metrics: pl.DataFrame) -> ForecastSettings:
    """The settings, with the objective of the best trial among a backtest's metrics where they leave it open."""
    if settings.objective != "auto":
        return settings
    tried = trials(metrics).filter(pl.col("objective").is_in(list(CANDIDATES))).drop_nulls()
    values: dict[str, float] = dict(tried.iter_rows())
    best = min(values, key=values.__getitem__, default=DEFAULT_OBJECTIVE)
    clearly = DEFAULT_OBJECTIVE in values and values[best] < CLEARLY_BETTER * values[DEFAULT_OBJECTIVE]
    return settings.model_copy(update=CANDIDATES[best if clearly else DEFAULT_OBJECTIVE])


def trials(metrics: pl.DataFrame) -> pl.DataFrame:
    """The trials among a backtest's metrics: objective, wrmsse (mean of the windows); the best first."""
    return (
        metrics.filter(pl.col("segment").str.starts_with(TRIAL))
        .group_by(objective=pl.col("segment").str.strip_prefix(TRIAL))
        .agg(pl.col("value").mean().alias(METRIC))
        .sort(METRIC, "objective")
    )


def without_trials(metrics: pl.DataFrame) -> pl.DataFrame:
    """A backtest's metrics without those of the trials."""
    return metrics.filter(~pl.col("segment").str.starts_with(TRIAL))


def _forecasts(
    demand: pl.DataFrame, history: pl.DataFrame, cutoff: date, settings: ForecastSettings
) -> Iterator[tuple[str, pl.DataFrame]]:
    totals = totals_for(CHALLENGER, demand, cutoff, settings)
    for name, changes in CANDIDATES.items():
        model = MODELS[CHALLENGER](demand, history, cutoff, settings.model_copy(update=changes), silent)
        yield name, align(model.predict_mean(demand, history, cutoff), totals, demand, cutoff)
