"""Exponential smoothing and Theta, each series for itself: what statisticians would try first.

Here: the only import of statsforecast, which the extra `statistics` brings. Not here: which days of a series count and
how a forecast is laid out (`forecasting/models.py`).
"""

from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any

import polars as pl

STATISTICAL = ("auto_ets", "theta")
SEASON_DAYS = 7
SHORTEST_DAYS = 4 * SEASON_DAYS
"""A series of fewer days shows no season; its recent mean says as much."""
LONGEST_DAYS = 365
"""More days multiply the time of AutoETS and hardly change a model of level, trend and week."""

_SERIES_OF_A_PROCESS = 500
"""With so many series a second process repays the seconds that it takes to start."""


class MissingExtra(Exception):
    """A model whose library is not installed; the message says how to install it."""


def require_library(model: str) -> None:
    """Raises `MissingExtra` where a statistical model's library is not installed; others need none."""
    if model in STATISTICAL and find_spec("statsforecast") is None:
        raise MissingExtra(
            f"the model {model} needs the extra statistics: pip install 'retail-platform[statistics]', or take "
            f"{model} out of forecast.models"
        )


def forecast_series(model: str, series: pl.DataFrame, horizon_days: int, processes: int) -> pl.DataFrame:
    """Forecast every series by one of `STATISTICAL`: series, date, value.

    `series` holds series (a number), date and units: at least `SHORTEST_DAYS` days each, without a gap or a null. A
    series that the method cannot fit gets the mean of its days.
    """
    parts = min(processes, max(1, series["series"].n_unique() // _SERIES_OF_A_PROCESS))
    if parts == 1:
        return _forecast_part(model, series, horizon_days)
    split = [series.filter(pl.col("series") % parts == part) for part in range(parts)]
    # Not forked: Polars and LightGBM have threads running, whose locks a forked child would inherit.
    with ProcessPoolExecutor(parts, mp_context=get_context("spawn")) as pool:
        return pl.concat(pool.map(_forecast_part, [model] * parts, split, [horizon_days] * parts))


def _forecast_part(model: str, series: pl.DataFrame, horizon_days: int) -> pl.DataFrame:
    from statsforecast import StatsForecast
    from statsforecast.models import HistoricAverage

    forecaster = StatsForecast([_method(model)], freq="1d", fallback_model=HistoricAverage(alias=model))
    forecast = forecaster.forecast(
        df=series.rename({"series": "unique_id", "date": "ds", "units": "y"}), h=horizon_days
    )
    return forecast.select(series="unique_id", date=pl.col("ds").cast(pl.Date), value=pl.col(model).cast(pl.Float64))


def _method(model: str) -> Any:
    from statsforecast.models import AutoETS, DynamicOptimizedTheta

    if model == "auto_ets":
        return AutoETS(season_length=SEASON_DAYS, alias=model)
    return DynamicOptimizedTheta(season_length=SEASON_DAYS, decomposition_type="additive", alias=model)
