"""How the mean model learns on this panel: tried on windows before all that a backtest scores.

Here: the objective that it minimises and the number of trees after which it stops, their trials, and the choice that
follows. Not here: what an objective is and how a model is trained (`forecasting/models.py`).

Objectives are ranked by small trainings, of one horizon block and few trees. Numbers of trees are ranked by trainings
with all that the settings have, each judged as it was after a part of its trees. The figures of both go into the
metrics of the backtest, where everybody can read why a model learned as it did.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl

from retail_platform.features.dense import SERIES
from retail_platform.features.history import known_until
from retail_platform.forecasting.expected import align, observed_after, totals_for
from retail_platform.forecasting.hierarchy import Hierarchy, node_scales
from retail_platform.forecasting.metrics import wrmsse
from retail_platform.forecasting.models import (
    CHALLENGER,
    DEFAULT_OBJECTIVE,
    NothingToLearn,
    Progress,
    fit_lightgbm,
    silent,
)
from retail_platform.settings import ForecastSettings

METRIC = "wrmsse"
OBJECTIVE_TRIAL, TREES_TRIAL = "objective ", "trees "
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
SHORTEST_TO_STOP_BY = 1 / 3
"""Share of the days of the last training that one needs whose best number of trees is to be that of the last."""
TRIAL_ROWS, TRIAL_TREES, TRIAL_LEARNING_RATE = 60_000, 60, 0.1
STAGES = 5
"""A training is judged after so many equal parts of its trees."""

_SCHEMA = {"model": pl.String, "cutoff": pl.Date, "segment": pl.String, "metric": pl.String, "value": pl.Float64}


def run_trials(
    demand: pl.DataFrame,
    history: pl.DataFrame,
    last_cutoff: date,
    settings: ForecastSettings,
    progress: Progress = silent,
) -> pl.DataFrame:
    """WRMSSE of every choice that the settings leave open, mean of the levels, in the `WINDOWS` windows a horizon apart
    of which the last begins at `last_cutoff`: model, cutoff, segment, metric, value. Numbers of trees are tried with
    the objective that the trials before them choose.

    No row where the panel leaves the first window fewer than `FEWEST_TRAINING_DAYS` to learn from, or nothing was sold
    on these: neither one window nor a short training decides. Numbers of trees are tried only where it leaves at least
    `SHORTEST_TO_STOP_BY` of the days that a training on everything known has: a short one is soon learned by heart.
    """
    last_day = known_until(demand)
    found = pl.DataFrame(schema=_SCHEMA)
    if last_day is None:
        return found
    first_day: date = demand["date"].min()  # type: ignore[assignment]
    cutoffs = [last_cutoff - timedelta(days=settings.horizon_days * step) for step in reversed(range(WINDOWS))]
    fewest = _days_to_learn_from(first_day, cutoffs[0], settings)
    if fewest < FEWEST_TRAINING_DAYS:
        return found
    judge = _Judge.of(demand, history, cutoffs[0])
    try:
        if settings.objective == "auto":
            found = judge.judged(cutoffs, lambda cutoff: _objectives(judge, cutoff, settings, progress))
            settings = _with_objective(settings, found)
            progress(f"objective: {settings.objective}")
        all_days = _days_to_learn_from(first_day, last_day, settings)
        if settings.early_stopping and fewest >= SHORTEST_TO_STOP_BY * all_days:
            stopped = judge.judged(cutoffs, lambda cutoff: _numbers_of_trees(judge, cutoff, settings, progress))
            found = pl.concat([found, stopped])
            progress(f"trees: {with_choices(settings, found).trees}")
    except NothingToLearn:
        return pl.DataFrame(schema=_SCHEMA)
    return found


def stages(trees: int) -> list[int]:
    """The numbers of trees after which a training of `trees` is judged, all of them the last."""
    return sorted({-(-trees * stage // STAGES) for stage in range(1, STAGES + 1)})


def with_choices(settings: ForecastSettings, metrics: pl.DataFrame) -> ForecastSettings:
    """The settings, with what they leave open as the trials among a backtest's metrics choose it: the objective, and
    the number of trees with the lowest WRMSSE, the fewest of equals.
    """
    return _with_number_of_trees(_with_objective(settings, metrics), metrics)


def trials(metrics: pl.DataFrame, kind: str) -> pl.DataFrame:
    """The trials of a kind among a backtest's metrics: tried, wrmsse (mean of the windows); the best first."""
    return (
        metrics.filter(pl.col("segment").str.starts_with(kind))
        .group_by(tried=pl.col("segment").str.strip_prefix(kind))
        .agg(pl.col("value").mean().alias(METRIC))
        .sort(METRIC, "tried")
    )


def without_trials(metrics: pl.DataFrame) -> pl.DataFrame:
    """A backtest's metrics without those of the trials."""
    is_trial = (pl.col("segment").str.starts_with(kind) for kind in (OBJECTIVE_TRIAL, TREES_TRIAL))
    return metrics.filter(~pl.any_horizontal(is_trial))


def _days_to_learn_from(first_day: date, cutoff: date, settings: ForecastSettings) -> int:
    return min(settings.training_days, (cutoff - first_day).days - settings.horizon_days)


def _with_objective(settings: ForecastSettings, metrics: pl.DataFrame) -> ForecastSettings:
    if settings.objective != "auto":
        return settings
    values = {name: value for name, value in _values(metrics, OBJECTIVE_TRIAL).items() if name in CANDIDATES}
    best = min(values, key=values.__getitem__, default=DEFAULT_OBJECTIVE)
    clearly = DEFAULT_OBJECTIVE in values and values[best] < CLEARLY_BETTER * values[DEFAULT_OBJECTIVE]
    return settings.model_copy(update=CANDIDATES[best if clearly else DEFAULT_OBJECTIVE])


def _with_number_of_trees(settings: ForecastSettings, metrics: pl.DataFrame) -> ForecastSettings:
    if not settings.early_stopping:
        return settings
    values = _values(metrics, TREES_TRIAL)
    tried = [count for count in stages(settings.trees) if str(count) in values]
    best = min(tried, key=lambda count: values[str(count)], default=settings.trees)
    return settings.model_copy(update={"trees": best})


def _values(metrics: pl.DataFrame, kind: str) -> dict[str, float]:
    return dict(trials(metrics, kind).drop_nulls().iter_rows())


Forecasts = Iterator[tuple[str, pl.DataFrame]]
"""Segment of a trial, and what its model expects of each series and day."""


@dataclass(frozen=True)
class _Judge:
    """A panel with what its trials are judged by."""

    demand: pl.DataFrame
    history: pl.DataFrame
    hierarchy: Hierarchy
    truth: pl.DataFrame

    @classmethod
    def of(cls, demand: pl.DataFrame, history: pl.DataFrame, first_cutoff: date) -> "_Judge":
        return cls(demand, history, Hierarchy.of(demand), observed_after(demand, first_cutoff))

    def judged(self, cutoffs: Sequence[date], forecasts: Callable[[date], Forecasts]) -> pl.DataFrame:
        """The figures of the trials at each cutoff."""
        rows = []
        for cutoff in cutoffs:
            scales = node_scales(self.demand, self.hierarchy, cutoff)
            for segment, forecast in forecasts(cutoff):
                scored = forecast.join(self.truth, on=[*SERIES, "date"]).filter(pl.col("units").is_not_null())
                sums = self.hierarchy.sums(scored, ["mean", "units"]).join(scales, on=["level", "node"])
                value = wrmsse(sums, ["level"]).select(pl.col("value").mean()).item()
                rows.append((CHALLENGER, cutoff, segment, METRIC, value))
        return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _objectives(judge: _Judge, cutoff: date, settings: ForecastSettings, progress: Progress) -> Forecasts:
    progress(f"trying {len(CANDIDATES)} objectives on the {settings.horizon_days} days after {cutoff}")
    small = settings.model_copy(
        update={
            "horizon_blocks": (settings.horizon_days,),
            "training_rows": min(settings.training_rows, TRIAL_ROWS),
            "trees": min(settings.trees, TRIAL_TREES),
            "learning_rate": max(settings.learning_rate, TRIAL_LEARNING_RATE),
        }
    )
    totals = totals_for(CHALLENGER, judge.demand, cutoff, small)
    for name, changes in CANDIDATES.items():
        model = fit_lightgbm(judge.demand, judge.history, cutoff, small.model_copy(update=changes))
        mean = model.predict_mean(judge.demand, judge.history, cutoff)
        yield OBJECTIVE_TRIAL + name, align(mean, totals, judge.demand, cutoff)


def _numbers_of_trees(judge: _Judge, cutoff: date, settings: ForecastSettings, progress: Progress) -> Forecasts:
    counts = stages(settings.trees)
    progress(f"trying {', '.join(map(str, counts))} trees on the {settings.horizon_days} days after {cutoff}")
    model = fit_lightgbm(judge.demand, judge.history, cutoff, settings, progress)
    totals = totals_for(CHALLENGER, judge.demand, cutoff, settings)
    for count, mean in model.predict_stages(judge.demand, judge.history, cutoff, counts).items():
        yield f"{TREES_TRIAL}{count}", align(mean, totals, judge.demand, cutoff)
