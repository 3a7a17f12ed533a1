"""What a kind of model expects from an origin: trained to there, forecast, and aligned to the totals.

Here: the one way from a panel to the means that are judged and published. Not here: how each model learns
(`forecasting/models.py`), the totals themselves (`forecasting/totals.py`) and the spread around the means
(`forecasting/quantiles.py`).
"""

from datetime import date

import polars as pl

from retail_platform.features.dense import SERIES
from retail_platform.features.history import observed_units
from retail_platform.forecasting.models import CHALLENGER, MODELS, Progress, silent
from retail_platform.forecasting.totals import StoreTotals
from retail_platform.settings import ForecastSettings

ALIGNED = (CHALLENGER,)
"""Models that learn, and whose forecasts are aligned to the totals; the others stay what they are called."""


def expected_units(
    model: str,
    demand: pl.DataFrame,
    history: pl.DataFrame,
    origin: date,
    settings: ForecastSettings,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Means of the days after `origin` by a model (a key of MODELS) that knows the days to it: store_id, item_id, date,
    horizon, listed, mean, and uncorrected_mean, the mean before it was aligned.
    """
    forecast = MODELS[model](demand, history, origin, settings, progress).predict_mean(demand, history, origin)
    return align(forecast, totals_for(model, demand, origin, settings), demand, origin).with_columns(
        uncorrected_mean=forecast["mean"]
    )


def totals_for(model: str, demand: pl.DataFrame, cutoff: date, settings: ForecastSettings) -> StoreTotals:
    """The totals up to the cutoff; none where the model is not aligned to them, or the settings want none."""
    if not settings.totals_share or model not in ALIGNED:
        return StoreTotals.none(settings)
    return StoreTotals.fit(demand, cutoff, settings)


def align(forecast: pl.DataFrame, totals: StoreTotals, demand: pl.DataFrame, origin: date) -> pl.DataFrame:
    """The forecast of series with its means aligned to the totals; rows stay in their order."""
    # Every series that is forecast has a row on the day of the origin; the others need not be looked through.
    nodes = nodes_of_series(demand.filter(pl.col("date") == origin))
    named = forecast.join(nodes, on=SERIES, how="left", maintain_order="left")
    return totals.align(named, demand, origin).drop("department", "category")


def observed_after(demand: pl.DataFrame, day: date) -> pl.DataFrame:
    """What is judged by: store_id, item_id, date and units of the days after `day`; units are null where they do not
    tell the demand.
    """
    later = demand.lazy().filter(pl.col("date") > day)
    return later.select(*SERIES, "date", units=observed_units().cast(pl.Float64)).collect()


def nodes_of_series(demand: pl.DataFrame) -> pl.DataFrame:
    """store_id, item_id, department and category of every series."""
    return demand.select(*SERIES, "department", "category").unique(SERIES, keep="last", maintain_order=True)
