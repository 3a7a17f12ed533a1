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
from retail_platform.features.history import observed_units
from retail_platform.forecasting.expected import expected_units
from retail_platform.forecasting.hierarchy import Hierarchy, node_scales
from retail_platform.forecasting.metrics import wrmsse
from retail_platform.forecasting.models import NothingToLearn, Progress, silent
from retail_platform.settings import ForecastSettings

LEARNER = "lightgbm"
METRIC = "wrmsse"
TRIAL = "objective "
"""Segments of a backtest's metrics that begin so are trials, and say nothing of how good a published model is."""

CANDIDATES: dict[str, dict[str, Any]] = {
    "tweedie 1.1": {"objective": "tweedie", "tweedie_variance_power": 1.1},
    "tweedie 1.5": {"objective": "tweedie", "tweedie_variance_power": 1.5},
    "poisson": {"objective": "poisson"},
    "l2": {"objective": "l2"},
    "log_l1": {"objective": "log_l1"},
}
"""Objectives by name, as changes of the settings; the first is taken where nothing is clearly better."""

WINDOWS = 2
CLEARLY_BETTER = 0.99
"""An objective takes the first one's place with a WRMSSE below this share of it: less is chance."""
TRIAL_ROWS, TRIAL_TREES = 100_000, 100


def try_objectives(
    demand: pl.DataFrame,
    history: pl.DataFrame,
    last_cutoff: date,
    settings: ForecastSettings,
    progress: Progress = silent,
) -> pl.DataFrame:
    """WRMSSE of each candidate, mean of the levels, in the `WINDOWS` windows a horizon apart of which the last begins
    at `last_cutoff`: model, cutoff, segment, metric, value. Windows for which the panel is too short are left out.
    """
    hierarchy = Hierarchy.of(demand)
    truth = demand.select(*SERIES, "date", units=observed_units().cast(pl.Float64))
    cutoffs = [last_cutoff - timedelta(days=settings.horizon_days * step) for step in range(WINDOWS)]
    rows = [
        row
        for cutoff in reversed(cutoffs)
        for row in _trials(demand, history, cutoff, settings, hierarchy, truth, progress)
    ]
    schema = {"model": pl.String, "cutoff": pl.Date, "segment": pl.String, "metric": pl.String, "value": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def with_chosen_objective(settings: ForecastSettings, metrics: pl.DataFrame) -> ForecastSettings:
    """The settings, with the objective of the best trial among a backtest's metrics where they leave it open."""
    if settings.objective != "auto":
        return settings
    first = next(iter(CANDIDATES))
    tried = trials(metrics).filter(pl.col("objective").is_in(list(CANDIDATES))).drop_nulls()
    values: dict[str, float] = dict(tried.iter_rows())
    best = next(iter(values), first)
    clearly = best != first and values[best] < CLEARLY_BETTER * values.get(first, float("inf"))
    return settings.model_copy(update=CANDIDATES[best if clearly else first])


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


def _trials(
    demand: pl.DataFrame,
    history: pl.DataFrame,
    cutoff: date,
    settings: ForecastSettings,
    hierarchy: Hierarchy,
    truth: pl.DataFrame,
    progress: Progress,
) -> Iterator[tuple[str, date, str, str, float | None]]:
    small = settings.model_copy(
        update={
            "horizon_blocks": (settings.horizon_days,),
            "training_rows": min(settings.training_rows, TRIAL_ROWS),
            "trees": min(settings.trees, TRIAL_TREES),
        }
    )
    scales = node_scales(demand, hierarchy, cutoff)
    for name, changes in CANDIDATES.items():
        progress(f"trying the objective {name} on the {settings.horizon_days} days after {cutoff}")
        recipe = small.model_copy(update=changes)
        try:
            forecast = expected_units(LEARNER, demand, history, cutoff, recipe)
        except NothingToLearn:
            return
        scored = forecast.join(truth, on=[*SERIES, "date"]).filter(pl.col("units").is_not_null())
        levels = wrmsse(hierarchy.sums(scored, ["mean", "units"]).join(scales, on=["level", "node"]), ["level"])
        yield LEARNER, cutoff, TRIAL + name, METRIC, levels.select(pl.col("value").mean()).item()
