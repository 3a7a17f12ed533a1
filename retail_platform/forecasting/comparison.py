"""Is one model better than another, or was it luck? Differences over the same folds, with their standard errors.

Here: paired differences of measures, and forecast value added. Not here: the decision that follows from them.
"""

import polars as pl

from retail_platform.contracts.forecast import NAIVE

LOWER_IS_BETTER = ("wape", "mae", "rmse", "mase", "rmsse", "pinball", "wrmsse", "wspl")
"""Measures of which less is better. Bias and coverage have an aim instead, and are not compared."""


def paired_differences(metrics: pl.DataFrame, model: str, baseline: str) -> pl.DataFrame:
    """How much lower each measure of `model` is than that of `baseline`, over the cutoffs that both have.

    `metrics` are a backtest's (model, cutoff, segment, metric, value). Returns segment, metric, cutoffs, own, other,
    saved (mean of other - own: above 0 where `model` is better), saved_share (relative to `other`), standard_error of
    saved over the cutoffs; null where there is but one. Cutoffs at which either is not defined are passed over.
    """
    keys = ["segment", "metric", "cutoff"]
    values = metrics.filter(pl.col("metric").is_in(LOWER_IS_BETTER) & pl.col("value").is_not_null())
    own, other = (
        values.filter(pl.col("model") == name).select(*keys, pl.col("value").alias(column))
        for name, column in ((model, "own"), (baseline, "other"))
    )
    saved = pl.col("other") - pl.col("own")
    return (
        own.join(other, on=keys)
        .group_by("segment", "metric")
        .agg(
            cutoffs=pl.len(),
            own=pl.col("own").mean(),
            other=pl.col("other").mean(),
            saved=saved.mean(),
            standard_error=saved.std() / pl.len().sqrt(),
        )
        .with_columns(saved_share=pl.when(pl.col("other") > 0).then(pl.col("saved") / pl.col("other")))
        .select("segment", "metric", "cutoffs", "own", "other", "saved", "saved_share", "standard_error")
        .sort("segment", "metric")
    )


def value_added(metrics: pl.DataFrame, metric: str = "wape", baseline: str = NAIVE) -> pl.DataFrame:
    """Forecast value added of every model over the baseline, in all: model and the columns of `paired_differences`."""
    models = metrics.filter(pl.col("model") != baseline)["model"].unique(maintain_order=True)
    own = {model: paired_differences(metrics, model, baseline) for model in models}
    return pl.concat(
        frame.filter((pl.col("segment") == "all") & (pl.col("metric") == metric))
        .drop("segment", "metric")
        .insert_column(0, pl.Series("model", [model]))
        for model, frame in own.items()
    )
