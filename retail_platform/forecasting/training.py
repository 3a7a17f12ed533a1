"""The model that is published: trained on everything known, with the spread that the backtest taught.

Here: training for publication, the forecast, and the gate that a model must pass. Not here: the registry and where
files lie (`orchestration/`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from retail_platform.contracts.forecast import NAIVE
from retail_platform.features.dense import SERIES
from retail_platform.features.history import known_until
from retail_platform.forecasting.backtest import node_errors, node_forecasts
from retail_platform.forecasting.expected import align, totals_for
from retail_platform.forecasting.hierarchy import Hierarchy
from retail_platform.forecasting.models import (
    CHALLENGER,
    MODELS,
    MeanModel,
    Progress,
    model_from_files,
    silent,
)
from retail_platform.forecasting.quantiles import NodeSpread, QuantileCalibrator, dispersions
from retail_platform.forecasting.totals import StoreTotals
from retail_platform.forecasting.training_set import horizon_blocks
from retail_platform.settings import ForecastSettings


@dataclass(frozen=True)
class TrainedModel:
    """A model of the mean, the totals that it is aligned to and the spread around it: all that a forecast needs besides
    the panel.
    """

    mean_model: MeanModel
    totals: StoreTotals
    calibrator: QuantileCalibrator
    nodes: NodeSpread
    trained_until: date

    @property
    def name(self) -> str:
        """Kind of model, a key of MODELS."""
        return self.mean_model.name

    def files(self) -> dict[str, str]:
        """The model as text by file name; equal models give equal files."""
        return {
            **self.mean_model.to_files(),
            "totals.json": self.totals.to_json(),
            "calibrator.json": self.calibrator.to_json(),
            "nodes.json": self.nodes.to_json(),
            "trained_until.txt": self.trained_until.isoformat() + "\n",
        }

    @classmethod
    def from_files(cls, files: Mapping[str, str]) -> "TrainedModel":
        """The model that `files` wrote. Raises `KeyError` with the name of a missing file."""
        return cls(
            model_from_files(files),
            StoreTotals.from_json(files["totals.json"]),
            QuantileCalibrator.from_json(files["calibrator.json"]),
            NodeSpread.from_json(files["nodes.json"]),
            date.fromisoformat(files["trained_until.txt"].strip()),
        )


@dataclass(frozen=True)
class Gate:
    """Whether a model may be published, with the figures behind it; `text` is the sentence for the registry."""

    passed: bool
    wape: float
    naive_wape: float
    text: str


def train(
    demand: pl.DataFrame,
    history: pl.DataFrame,
    errors: pl.DataFrame,
    settings: ForecastSettings,
    *,
    model: str = CHALLENGER,
    progress: Progress = silent,
) -> TrainedModel:
    """Train a model on all known days; its quantiles come from its own errors in a backtest.

    `errors` are a backtest's: model, cutoff, store_id, item_id, horizon, mean, uncorrected_mean, dispersion and units
    of every forecast day, of any models. `model` is a key of MODELS: with "seasonal_naive" this gives the fallback
    where no model beats it.
    """
    # The panel of a shard without stores knows no day, and the rule that stands in for a model needs none.
    last_day: date = known_until(demand)  # type: ignore[assignment]
    own, blocks = errors.filter(pl.col("model") == model), horizon_blocks(settings)
    return TrainedModel(
        MODELS[model](demand, history, last_day, settings, progress),
        totals_for(model, demand, last_day, settings),
        QuantileCalibrator.fit(own, blocks),
        NodeSpread.fit(node_errors(own, Hierarchy.of(demand)), blocks),
        last_day,
    )


def make_forecast(model: TrainedModel, demand: pl.DataFrame, history: pl.DataFrame, origin: date) -> pl.DataFrame:
    """Forecast every series that existed at `origin`: store_id, item_id, date, horizon, mean and the QUANTILES.

    Quantiles do not cross, and nothing is negative. Reads nothing that became known after `origin`; the run facts of
    forecast.demand are the caller's to add.
    """
    aligned = align(model.mean_model.predict_mean(demand, history, origin), model.totals, demand, origin).join(
        dispersions(history, origin), on=SERIES, how="left", maintain_order="left"
    )
    return model.calibrator.apply(aligned).drop("listed", "dispersion")


def forecast_of_nodes(model: TrainedModel, demand: pl.DataFrame, forecast: pl.DataFrame) -> pl.DataFrame:
    """The forecast at every level of the hierarchy above the series: level, node, date, horizon, mean and the
    QUANTILES. The means of all levels add up.

    `forecast` is what `make_forecast` returned for the same panel.
    """
    hierarchy = Hierarchy.of(demand)
    return node_forecasts(forecast, hierarchy, model.nodes).filter(pl.col("level") != (hierarchy.finest or ""))


def beats_naive(metrics: pl.DataFrame, *, model: str = CHALLENGER) -> Gate:
    """The gate: `model` passes if its WAPE over all horizons, averaged over the cutoffs of the backtest, is below
    that of seasonal naive. RMSSE is reported beside it and decides nothing.

    `metrics` are a backtest's (model, cutoff, segment, metric, value). Where either WAPE is not defined, because
    nothing was sold, the gate stays shut.
    """
    overall = metrics.filter(pl.col("segment") == "all")
    own, naive = (_mean_metric(overall, name, "wape") for name in (model, NAIVE))
    own_rmsse, naive_rmsse = (_mean_metric(overall, name, "rmsse") for name in (model, NAIVE))
    passed = own < naive
    text = (
        f"{model} {'beats' if passed else 'does not beat'} seasonal naive: WAPE {own:.4f} against {naive:.4f} "
        f"(RMSSE {own_rmsse:.4f} against {naive_rmsse:.4f}), mean of {overall['cutoff'].n_unique()} cutoffs"
    )
    return Gate(passed, own, naive, text)


def _mean_metric(overall: pl.DataFrame, model: str, metric: str) -> float:
    values = overall.filter((pl.col("model") == model) & (pl.col("metric") == metric))["value"]
    mean = values.mean()
    return float(mean) if isinstance(mean, float) and values.null_count() == 0 else float("nan")
