"""Models of the mean: what the simple rules say, and what the trained one must keep."""

from datetime import timedelta
from typing import get_args, get_type_hints

import numpy as np
import polars as pl
import pytest

from retail_platform.features.history import build_history
from retail_platform.forecasting import statistical
from retail_platform.forecasting.backtest import run_backtest
from retail_platform.forecasting.models import (
    MODELS,
    MovingAverage,
    NothingToLearn,
    SeasonalNaive,
    Statistical,
    fit_lightgbm,
    model_from_files,
    silent,
)
from retail_platform.forecasting.statistical import MissingExtra
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, demand_panel, seasonal_panel

ONE = ("S1", "I1")
QUICK = ForecastSettings(trees=20, leaves=7, learning_rate=0.2, threads=1)
SEASONAL = seasonal_panel()
HISTORY = build_history(SEASONAL)
CUTOFF = START + timedelta(days=199 - 28)


def means(model: SeasonalNaive | MovingAverage, panel: pl.DataFrame, day: int) -> list[float]:
    return model.predict_mean(panel, build_history(panel), START + timedelta(days=day))["mean"].to_list()


def test_seasonal_naive_repeats_the_last_known_week() -> None:
    panel = demand_panel({ONE: [float(day) for day in range(21)]})
    assert means(SeasonalNaive(10), panel, 20) == [14, 15, 16, 17, 18, 19, 20, 14, 15, 16]


def test_seasonal_naive_passes_over_days_that_tell_nothing_of_demand() -> None:
    units = [1.0] * 7 + [2.0, 0.0] + [2.0] * 5
    panel = demand_panel({ONE: units}, in_stock=[day != 8 for day in range(14 + 28)])
    assert means(SeasonalNaive(3), panel, 13) == [2, 1, 2]


def test_seasonal_naive_gives_a_weekday_never_seen_the_recent_mean() -> None:
    assert means(SeasonalNaive(3), demand_panel({ONE: [4.0, 2.0]}), 1) == [3, 3, 3]


def test_moving_average_is_the_mean_of_the_last_28_days() -> None:
    panel = demand_panel({ONE: [100.0] * 12 + [1.0] * 14 + [3.0] * 14})
    assert means(MovingAverage(2), panel, 39) == [2, 2]


def test_a_day_known_not_to_be_listed_has_no_demand() -> None:
    panel = demand_panel({ONE: [5.0] * 60}, listed=[day != 61 for day in range(88)])
    for fit in MODELS.values():
        history, origin = build_history(panel), START + timedelta(days=59)
        forecast = fit(panel, history, origin, QUICK, silent).predict_mean(panel, history, origin)
        assert forecast["mean"][1] == 0
        assert forecast["mean"][0] > 0


def test_lightgbm_learns_the_weekly_season_better_than_the_simple_rules() -> None:
    truth = SEASONAL.select("store_id", "item_id", "date", "units")
    errors = {}
    for name, fit in MODELS.items():
        forecast = fit(SEASONAL, HISTORY, CUTOFF, QUICK, silent).predict_mean(SEASONAL, HISTORY, CUTOFF)
        scored = forecast.join(truth, on=["store_id", "item_id", "date"])
        errors[name] = scored.select((pl.col("mean") - pl.col("units")).abs().sum()).item()
    assert errors["lightgbm"] < 0.9 * min(errors["seasonal_naive"], errors["moving_average"])


@pytest.mark.parametrize("name", MODELS)
def test_equal_input_gives_an_equal_model_and_files_bring_it_back(name: str) -> None:
    model = MODELS[name](SEASONAL, HISTORY, CUTOFF, QUICK, silent)
    files = MODELS[name](SEASONAL.reverse(), HISTORY.reverse(), CUTOFF, QUICK, silent).to_files()
    assert files == model.to_files()
    again = model_from_files(files)
    assert again.name == name
    forecast = model.predict_mean(SEASONAL, HISTORY, CUTOFF)
    assert again.predict_mean(SEASONAL, HISTORY, CUTOFF).equals(forecast)


def test_the_settings_know_the_models_that_there_are() -> None:
    names, *_ = get_args(get_type_hints(ForecastSettings)["models"])
    assert get_args(names) == tuple(MODELS)


def test_more_processes_forecast_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    forecasts = []
    for few in (1_000, 3):
        monkeypatch.setattr(statistical, "_SERIES_OF_A_PROCESS", few)
        forecasts.append(Statistical("theta", 28, processes=2).predict_mean(SEASONAL, HISTORY, CUTOFF))
    assert forecasts[0].equals(forecasts[1])


def test_a_model_whose_library_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistical, "find_spec", lambda _: None)
    settings = QUICK.model_copy(update={"models": tuple(MODELS)})
    with pytest.raises(MissingExtra, match=r"auto_ets needs the extra statistics: pip install 'retail-platform\[stat"):
        run_backtest(SEASONAL, HISTORY, settings)


def test_a_training_without_a_sale_says_so() -> None:
    panel = demand_panel({ONE: [1.0] + [0.0] * 150})
    with pytest.raises(NothingToLearn, match="nothing was sold on the days to learn from"):
        fit_lightgbm(panel, build_history(panel), START + timedelta(days=150), QUICK, silent)


def test_a_model_of_other_features_is_refused_by_name() -> None:
    files = fit_lightgbm(SEASONAL, HISTORY, CUTOFF, QUICK, silent).to_files()
    files["model.json"] = files["model.json"].replace('"mean_28"', '"moon_phase"')
    with pytest.raises(ValueError, match=r"no longer computed: moon_phase; new: mean_28; train it again"):
        model_from_files(files)


def test_a_panel_shorter_than_the_horizon_says_what_to_do() -> None:
    panel = demand_panel({ONE: [1.0] * 20})
    with pytest.raises(NothingToLearn, match=r"the panel holds 20 days to then; load earlier sales"):
        fit_lightgbm(panel, build_history(panel), START + timedelta(days=19), QUICK, silent)


def test_short_vanished_and_patchy_series_all_get_a_finite_forecast() -> None:
    gap = [3.0] * 20 + [0.0] * 150 + [2.0] * 30
    panel = demand_panel(
        {
            ("S1", "BORN_TODAY"): [1.0],
            ("S1", "BORN_LAST_WEEK"): [2.0, 0.0, 1.0, 0.0, 0.0],
            ("S1", "GAP"): gap,
            ("S1", "HUGE"): [1e6] * 200,
            ("S1", "SOLD_ONCE"): [1.0] + [0.0] * 199,
        }
    )
    history, origin = build_history(panel), START + timedelta(days=199)
    for fit in MODELS.values():
        forecast = fit(panel, history, origin, QUICK, silent).predict_mean(panel, history, origin)
        assert forecast.height == 5 * 28
        assert forecast["horizon"].to_list() == [*range(1, 29)] * 5
        assert np.isfinite(forecast["mean"].to_numpy()).all()
        assert (forecast["mean"] >= 0).all()


def test_the_importance_of_features_adds_up_to_one() -> None:
    model = fit_lightgbm(SEASONAL, HISTORY, CUTOFF, QUICK, silent)
    importance = model.importance()
    assert importance["share"].sum() == pytest.approx(1)
    assert importance["share"].is_sorted(descending=True)
