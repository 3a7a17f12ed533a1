"""Correction of forecasts that are too high or too low throughout a store's department.

Here: one factor per store and department, learned from a backtest. Not here: the forecast itself
(`forecasting/models.py`) and the spread around it (`forecasting/quantiles.py`).

The last month's bias of a node is for the most part chance: taken at its word it makes the next forecast worse. A
factor is shrunk towards 1 by how much the node's bias varied from cutoff to cutoff, and is 1 where it changed sign as
easily as it kept it (James and Stein's estimator, positive part).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

LARGEST_CORRECTION = 0.05
FEWEST_CUTOFFS = 2

_NODE = ["store_id", "department"]


@dataclass(frozen=True)
class BiasFactors:
    """`factors` by store and department; nodes that are not named have the factor 1."""

    factors: Mapping[tuple[str, str | None], float]

    @classmethod
    def fit(cls, errors: pl.DataFrame | None) -> "BiasFactors":
        """Learn from forecasts of several cutoffs: store_id, department, cutoff, mean, units. Rows without units are
        passed over; with fewer than two cutoffs nothing is corrected.
        """
        if errors is None:
            return cls({})
        by_cutoff = (
            errors.filter(pl.col("units").is_not_null())
            .group_by(*_NODE, "cutoff")
            .agg(pl.col("units", "mean").sum())
            .filter((pl.col("units") > 0) & (pl.col("mean") > 0))
            .with_columns(log_ratio=(pl.col("units") / pl.col("mean")).log())
        )
        ratio = pl.col("log_ratio")
        variance_of_mean = ratio.var() / ratio.len()
        kept = (1 - variance_of_mean / ratio.mean() ** 2).clip(0, 1)
        factors = (
            by_cutoff.group_by(_NODE)
            .agg(cutoffs=pl.len(), factor=(ratio.mean() * kept).exp())
            .filter((pl.col("cutoffs") >= FEWEST_CUTOFFS) & pl.col("factor").is_finite())
            .with_columns(pl.col("factor").clip(1 - LARGEST_CORRECTION, 1 + LARGEST_CORRECTION))
            .filter(pl.col("factor") != 1)
            .sort(_NODE)
        )
        return cls({(store, department): factor for store, department, _, factor in factors.iter_rows()})

    def apply(self, forecast: pl.DataFrame) -> pl.DataFrame:
        """Multiply `mean` by the factor of the row's store_id and department."""
        if not self.factors:
            return forecast
        table = pl.DataFrame(
            [(store, department, factor) for (store, department), factor in self.factors.items()],
            schema={"store_id": pl.String, "department": pl.String, "factor": pl.Float64},
            orient="row",
        )
        joined = forecast.join(table, on=_NODE, how="left", nulls_equal=True, maintain_order="left")
        return joined.with_columns(mean=pl.col("mean") * pl.col("factor").fill_null(1.0)).drop("factor")

    def to_json(self) -> str:
        return json.dumps([[store, department, factor] for (store, department), factor in self.factors.items()])

    @classmethod
    def from_json(cls, text: str) -> "BiasFactors":
        return cls({(store, department): factor for store, department, factor in json.loads(text)})
