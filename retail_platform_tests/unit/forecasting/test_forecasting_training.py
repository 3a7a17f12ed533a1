"""The published model: files, forecast and the gate."""

import math
from datetime import date, timedelta

import polars as pl
import pytest

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.features.history import build_history
from retail_platform.forecasting.backtest import Backtest, run_backtest
from retail_platform.forecasting.models import MODELS
from retail_platform.forecasting.training import TrainedModel, beats_naive, make_forecast, train
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, seasonal_panel

SETTINGS = ForecastSettings(
    trees=20, leaves=7, learning_rate=0.2, threads=1, objective="tweedie", models=tuple(MODELS), cutoffs=3
)
PANEL = seasonal_panel(series=10, days=200)
HISTORY = build_history(PANEL)
LAST = START + timedelta(days=199)


@pytest.fixture(scope="module")
def backtest() -> Backtest:
    return run_backtest(PANEL, HISTORY, SETTINGS)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_published_kept_as_text_and_brought_back(backtest: Backtest, name: str) -> None:
    model = train(PANEL, HISTORY, backtest.errors, SETTINGS, model=name)
    again = TrainedModel.from_files(model.files())
    assert (again.name, again.trained_until) == (name, LAST)
    assert all(errors > 0 for classes in again.calibrator.errors for errors in classes)
    forecast = make_forecast(model, PANEL, HISTORY, LAST)
    assert make_forecast(again, PANEL, HISTORY, LAST).equals(forecast)
    assert forecast.columns == ["store_id", "item_id", "date", "horizon", "mean", *QUANTILES]
    assert forecast.height == 10 * 28
    assert forecast["date"].min() == LAST + timedelta(days=1)


def test_the_quantiles_of_a_forecast_hold_what_was_sold_afterwards(backtest: Backtest) -> None:
    model = train(PANEL, HISTORY, backtest.errors, SETTINGS)
    longer = seasonal_panel(series=10, days=228)
    sold = longer.filter(pl.col("date") > LAST).select("store_id", "item_id", "date", "units")
    scored = make_forecast(model, PANEL, HISTORY, LAST).join(sold, on=["store_id", "item_id", "date"])
    assert (scored["units"] <= scored["q995"]).mean() > 0.95
    assert 0.3 < (scored["units"] <= scored["q50"]).mean() < 0.75


def metrics(own: list[float | None], naive: list[float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            (model, date(2017, month + 1, 1), segment, metric, value)
            for model, values in (("lightgbm", own), ("seasonal_naive", naive))
            for month, value in enumerate(values)
            for segment, metric in (("all", "wape"), ("all", "rmsse"), ("horizon 1-7", "wape"))
        ],
        schema={
            "model": pl.String,
            "cutoff": pl.Date,
            "segment": pl.String,
            "metric": pl.String,
            "value": pl.Float64,
        },
        orient="row",
    )


def test_the_gate_compares_the_mean_over_cutoffs() -> None:
    gate = beats_naive(metrics([0.5, 0.9], [0.8, 0.8]))
    assert gate.passed
    assert (gate.wape, gate.naive_wape) == pytest.approx((0.7, 0.8))
    assert gate.text == (
        "lightgbm beats seasonal naive: WAPE 0.7000 against 0.8000 (RMSSE 0.7000 against 0.8000), mean of 2 cutoffs"
    )


@pytest.mark.parametrize(
    ("own", "naive"), [([0.9], [0.8]), ([0.8], [0.8]), ([None], [0.8]), ([0.5, None], [0.8, 0.8]), ([0.5], [None])]
)
def test_the_gate_stays_shut_unless_the_model_is_better_beyond_doubt(
    own: list[float | None], naive: list[float | None]
) -> None:
    gate = beats_naive(metrics(own, naive))
    assert not gate.passed
    assert "does not beat" in gate.text
    assert math.isnan(gate.wape) == (None in own)


def test_a_missing_file_is_named(backtest: Backtest) -> None:
    files = train(PANEL, HISTORY, backtest.errors, SETTINGS).files()
    del files["calibrator.json"]
    with pytest.raises(KeyError, match=r"calibrator\.json"):
        TrainedModel.from_files(files)
