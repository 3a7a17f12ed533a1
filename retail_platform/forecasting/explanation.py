"""Why a model forecasts what it does: how much each feature moves its forecasts, in all and for single series.

Here: LightGBM's own Shapley values (`pred_contrib`), summed up. Not here: the card that shows them
(`forecasting/model_card.py`).

A contribution is what a feature adds to the logarithm of the expected units, so that its exponential is a factor on
them. The baseline is the level of the series, from which the model learns departures. Both add up to the forecast,
before it is aligned to the store's totals. Contributions say what the model made of a feature, not what the feature
does to demand: of two features that say nearly the same, either may get the credit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.features.dense import SERIES
from retail_platform.forecasting.models import LightGbm, MeanModel
from retail_platform.forecasting.training_set import Known, forecast_rows, level_of, matrix

Floats = npt.NDArray[np.float64]

SAMPLED_ROWS = 500
"""Days of any series that are explained per horizon block: enough for a mean, and little work."""
STRONGEST = 5
WITH_FACTORS = ("tweedie", "poisson")
"""Objectives whose departures from the level are factors."""


@dataclass(frozen=True)
class Factor:
    """A feature and by what it multiplies the expected units, geometric mean over the days of the horizon."""

    feature: str
    factor: float


@dataclass(frozen=True)
class SeriesExplanation:
    """`mean`: expected units per day; `baseline`: units per day at the level of the series; `factors`: the strongest
    ones, and `others`: the product of all the others. Over the days of the horizon, as geometric means.
    """

    store_id: str
    item_id: str
    mean: float
    baseline: float
    factors: tuple[Factor, ...]
    others: float


@dataclass(frozen=True)
class Explanation:
    """`importance`: feature, share of all that features move forecasts by, the greatest first."""

    importance: pl.DataFrame
    series: tuple[SeriesExplanation, ...]


@dataclass(frozen=True)
class Contributions:
    """`rows`: store_id, item_id, date of each row of `values`, whose columns are the features; `baseline` by row. All
    on the scale of the logarithm.
    """

    rows: pl.DataFrame
    features: Sequence[str]
    values: Floats
    baseline: Floats


def explain(
    model: MeanModel, demand: pl.DataFrame, history: pl.DataFrame, origin: date, *, series: int = 5, seed: int = 0
) -> Explanation | None:
    """Explain the forecasts from `origin`: those of the `series` that are expected to sell most, and by a sample of all
    the importance of the features. None for models that learn nothing. Single series are explained only where the
    model's objective makes departures from the level factors.
    """
    if not isinstance(model, LightGbm):
        return None
    forecast = model.predict_mean(demand, history, origin).filter("listed")
    largest = (
        forecast.group_by(SERIES)
        .agg(pl.col("mean").sum())
        .sort("mean", *SERIES, descending=[True, False, False])
        .head(series)
        .select(SERIES)
    )
    sample = forecast.select(*SERIES, "date").sample(min(SAMPLED_ROWS * len(model.blocks), forecast.height), seed=seed)
    moved = np.abs(contributions(model, demand, history, origin, sample).values).mean(axis=0)
    importance = pl.DataFrame({"feature": model.features, "share": moved / max(float(moved.sum()), 1e-12)})
    importance = importance.sort("share", "feature", descending=[True, False])
    if model.objective not in WITH_FACTORS:
        return Explanation(importance, ())
    own = contributions(model, demand, history, origin, forecast.join(largest, on=SERIES, how="semi"))
    return Explanation(importance, tuple(_of_series(own, store, item) for store, item in largest.iter_rows()))


def contributions(
    model: LightGbm, demand: pl.DataFrame, history: pl.DataFrame, origin: date, days: pl.DataFrame
) -> Contributions:
    """What each feature contributes to the forecasts of these `days` (store_id, item_id, date)."""
    import lightgbm

    keys, parts = [*SERIES, "date"], []
    rows, levels = [days.select(keys).clear()], [np.zeros(0)]
    known = Known.of(demand, history)
    for block, text in zip(model.blocks, model.boosters, strict=True):
        chosen = forecast_rows(known, block, origin=origin).join(days, on=keys, how="semi")
        if chosen.height:
            booster, numbers = lightgbm.Booster(model_str=text), matrix(chosen, model.categories)
            parts.append(np.asarray(booster.predict(numbers, pred_contrib=True, num_threads=model.threads), np.float64))
            rows.append(chosen.select(keys))
            levels.append(level_of(chosen))
    values = np.concatenate(parts) if parts else np.zeros((0, len(model.features) + 1))
    baseline = np.log(np.concatenate(levels)) + values[:, -1]
    return Contributions(pl.concat(rows), model.features, values[:, :-1], baseline)


def _of_series(found: Contributions, store_id: str, item_id: str) -> SeriesExplanation:
    own = (found.rows["store_id"] == store_id) & (found.rows["item_id"] == item_id)
    mean, baseline = found.values[own.to_numpy()].mean(axis=0), found.baseline[own.to_numpy()].mean()
    strongest = np.argsort(-np.abs(mean), kind="stable")[:STRONGEST]
    return SeriesExplanation(
        store_id,
        item_id,
        mean=float(np.exp(baseline + mean.sum())),
        baseline=float(np.exp(baseline)),
        factors=tuple(Factor(found.features[place], float(np.exp(mean[place]))) for place in strongest),
        others=float(np.exp(mean.sum() - mean[strongest].sum())),
    )
