"""Measures of forecast accuracy: pure functions of one signature.

Each takes a frame of scored forecasts (mean, quantiles, units, and for the scaled measures scale_absolute and
scale_squared) and the columns to group by, and returns one row per group: those columns and `value`. Rows without
units are not scored; a group in which a measure is not defined has a null value.

`wrmsse` and `wspl` are the measures of the M5 competition. They take the forecasts of every node of the hierarchy:
besides the columns above level, node and weight (`forecasting/hierarchy.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType

import polars as pl

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.features.dense import SERIES
from retail_platform.features.history import observed_units

Metric = Callable[[pl.DataFrame, Sequence[str]], pl.DataFrame]

SEASON_DAYS = 7

M5_QUANTILES = ("q005", "q025", "q165", "q25", "q50", "q75", "q835", "q975", "q995")
"""The quantiles of the M5 uncertainty competition."""

_ERROR = pl.col("mean") - pl.col("units")


def wape(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Weighted absolute percentage error: sum of absolute errors / sum of units."""
    return _by(scored, by, _ratio(_ERROR.abs().sum(), pl.col("units").sum()))


def bias(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Relative bias: sum of errors / sum of units; above 0 where too much was forecast."""
    return _by(scored, by, _ratio(_ERROR.sum(), pl.col("units").sum()))


def mae(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Mean absolute error, in units per day."""
    return _by(scored, by, _ERROR.abs().mean())


def rmse(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Root mean squared error, in units per day."""
    return _by(scored, by, (_ERROR**2).mean().sqrt())


def mase(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Mean absolute scaled error (Hyndman and Koehler 2006), mean over series: absolute errors relative to those of
    the seasonal naive forecast within the training history. Series without a scale are passed over.
    """
    per_series = _by(
        _scaled(scored, "scale_absolute"), [*by, *SERIES], (_ERROR.abs() / pl.col("scale_absolute")).mean()
    )
    return _mean_over_series(per_series, by)


def rmsse(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Root mean squared scaled error (M5 competition), mean over series without weights: squared errors relative to
    those of the last-value forecast within the training history. Series without a scale are passed over.
    """
    scaled = _scaled(scored, "scale_squared")
    per_series = _by(scaled, [*by, *SERIES], (_ERROR**2 / pl.col("scale_squared")).mean().sqrt())
    return _mean_over_series(per_series, by)


def pinball(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Pinball loss, mean over the published quantiles, in units per day."""
    losses = [_pinball_loss(name, level) for name, level in QUANTILES.items()]
    return _by(scored, by, pl.mean_horizontal(losses).mean())


def coverage_50(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Share of days with units within q25 to q75, bounds included; about 0.5 or more (many days sell exactly 0)."""
    return _by(scored, by, pl.col("units").is_between("q25", "q75").mean())


def coverage_90(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Share of days with units within q05 to q95, bounds included; about 0.9 or more."""
    return _by(scored, by, pl.col("units").is_between("q05", "q95").mean())


def not_above_q95(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Share of days on which no more than q95 was sold; about 0.95."""
    return _by(scored, by, (pl.col("units") <= pl.col("q95")).mean())


def wrmsse(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Weighted root mean squared scaled error (M5 accuracy competition): the RMSSE of each node, mean over the nodes of
    a level by their weight, mean over the levels. Nodes without a scale are passed over.
    """
    scaled = _scaled(scored, "scale_squared")
    return _over_the_hierarchy(scaled, by, (_ERROR**2 / pl.col("scale_squared")).mean().sqrt())


def wspl(scored: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Weighted scaled pinball loss (M5 uncertainty competition): the pinball loss of each node, mean over the nine
    quantiles and relative to the node's mean absolute daily change; mean over nodes and levels as `wrmsse`.
    """
    scaled = _scaled(scored, "scale_absolute")
    losses = [_pinball_loss(name, QUANTILES[name]) for name in M5_QUANTILES]
    return _over_the_hierarchy(scaled, by, (pl.mean_horizontal(losses) / pl.col("scale_absolute")).mean())


METRICS: dict[str, Metric] = {
    "wape": wape,
    "bias": bias,
    "mae": mae,
    "rmse": rmse,
    "mase": mase,
    "rmsse": rmsse,
    "pinball": pinball,
    "coverage_50": coverage_50,
    "coverage_90": coverage_90,
    "not_above_q95": not_above_q95,
}


HIERARCHICAL_METRICS: dict[str, Metric] = {"wrmsse": wrmsse, "wspl": wspl}


def series_scales(demand: pl.DataFrame, cutoff: date) -> pl.DataFrame:
    """Scales of the scaled measures from the days to `cutoff`: store_id, item_id, scale_absolute (mean absolute
    change from the same weekday a week before) and scale_squared (mean squared change from the day before).

    Days out of stock or not listed are missing. A scale is null for a series that is too short or never changed.
    """
    observed = pl.col("observed")
    scale_absolute = (observed - observed.shift(SEASON_DAYS)).abs().mean()
    scale_squared = ((observed - observed.shift(1)) ** 2).mean()
    return (
        demand.lazy()
        .filter(pl.col("date") <= cutoff)
        .select(*SERIES, "date", observed=observed_units().cast(pl.Float64))
        .sort(*SERIES, "date")
        .group_by(SERIES, maintain_order=True)
        .agg(
            scale_absolute=pl.when(scale_absolute > 0).then(scale_absolute),
            scale_squared=pl.when(scale_squared > 0).then(scale_squared),
        )
        .collect()
    )


def all_metrics(
    scored: pl.DataFrame, by: Sequence[str], metrics: Mapping[str, Metric] = MappingProxyType(METRICS)
) -> pl.DataFrame:
    """Every measure in long form: the group columns, metric, value."""
    return pl.concat(
        metric(scored, by).select(*by, metric=pl.lit(name), value=pl.col("value").cast(pl.Float64))
        for name, metric in metrics.items()
    )


def _by(scored: pl.DataFrame, by: Sequence[str], value: pl.Expr) -> pl.DataFrame:
    known = scored.filter(pl.col("units").is_not_null())
    if not by:
        return known.select(value=value)
    return known.group_by(by).agg(value=value).sort(by)


def _mean_over_series(per_series: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    if not by:
        return per_series.select(pl.col("value").mean())
    return per_series.group_by(by).agg(pl.col("value").mean()).sort(by)


def _over_the_hierarchy(scored: pl.DataFrame, by: Sequence[str], value: pl.Expr) -> pl.DataFrame:
    groups = [name for name in by if name != "level"]
    nodes = _by(scored, [*groups, "level", "node"], value).join(
        scored.select("level", "node", "weight", *groups).unique(), on=[*groups, "level", "node"], nulls_equal=True
    )
    share = pl.col("weight") / pl.col("weight").sum()
    # Nodes of no weight are all that a level may have: then they count alike.
    mean = pl.when(pl.col("weight").sum() > 0).then((share * pl.col("value")).sum()).otherwise(pl.col("value").mean())
    levels = nodes.group_by(*groups, "level").agg(value=mean).sort(*groups, "level")
    return levels.select(*by, "value") if "level" in by else _mean_over_series(levels, by)


def _scaled(scored: pl.DataFrame, scale: str) -> pl.DataFrame:
    return scored.filter(pl.col(scale).is_not_null())


def _ratio(above: pl.Expr, below: pl.Expr) -> pl.Expr:
    return pl.when(below > 0).then(above / below)


def _pinball_loss(name: str, level: float) -> pl.Expr:
    missed = pl.col("units") - pl.col(name)
    return pl.max_horizontal(level * missed, (level - 1) * missed)
