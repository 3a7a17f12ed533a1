"""The choice of an objective: by trials before all that is scored, and only where something is clearly better."""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.features.history import build_history
from retail_platform.forecasting.backtest import run_backtest
from retail_platform.forecasting.models import CHALLENGER, OBJECTIVES
from retail_platform.forecasting.objective import (
    CANDIDATES,
    METRIC,
    TRIAL,
    trials,
    try_objectives,
    with_chosen_objective,
    without_trials,
)
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, demand_panel, seasonal_panel

OPEN = ForecastSettings(trees=10, leaves=7, learning_rate=0.2, threads=1, cutoffs=3, objective="auto")
PANEL = seasonal_panel(series=4, days=240)
HISTORY = build_history(PANEL)


def tried(values: dict[str, float | None]) -> pl.DataFrame:
    rows = [(CHALLENGER, START, TRIAL + name, METRIC, value) for name, value in values.items()]
    other = (CHALLENGER, START, "all", METRIC, 0.01)
    schema = {"model": pl.String, "cutoff": pl.Date, "segment": pl.String, "metric": pl.String, "value": pl.Float64}
    return pl.DataFrame([*rows, other], schema=schema, orient="row")


def test_every_candidate_is_an_objective_that_the_settings_can_name() -> None:
    for changes in CANDIDATES.values():
        assert ForecastSettings(**changes).objective in OBJECTIVES
    assert {changes["objective"] for changes in CANDIDATES.values()} == set(OBJECTIVES)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"tweedie": 0.80, "poisson": 0.70, "l2": 0.75}, ("poisson", 1.1)),
        ({"tweedie": 0.80, "tweedie 1.5": 0.60}, ("tweedie", 1.5)),
        ({"tweedie": 0.80, "poisson": 0.795}, ("tweedie", 1.1)),
        ({"tweedie": None, "l2": None}, ("tweedie", 1.1)),
        ({}, ("tweedie", 1.1)),
        ({"tweedie": 0.80, "objective of another version": 0.1}, ("tweedie", 1.1)),
        ({"l2": 0.5}, ("tweedie", 1.1)),
    ],
)
def test_the_first_candidate_stands_until_another_is_clearly_better(
    values: dict[str, float | None], expected: tuple[str, float]
) -> None:
    chosen = with_chosen_objective(OPEN, tried(values))
    assert (chosen.objective, chosen.tweedie_variance_power) == expected


def test_an_objective_that_is_set_is_not_chosen_again() -> None:
    named = OPEN.model_copy(update={"objective": "l2", "tweedie_variance_power": 1.3})
    assert with_chosen_objective(named, tried({"tweedie": 0.9, "poisson": 0.1})) == named


def test_trials_do_not_know_the_days_that_a_backtest_scores() -> None:
    cutoff = START + timedelta(days=115)
    later = pl.col("date") > cutoff + timedelta(days=28)
    changed = PANEL.with_columns(units=pl.when(later).then(pl.col("units") * 5 + 3).otherwise("units"))
    found = try_objectives(PANEL, HISTORY, cutoff, OPEN)
    assert found.height == 2 * len(CANDIDATES)
    assert found["cutoff"].max() == cutoff
    assert_frame_equal(try_objectives(changed, build_history(changed), cutoff, OPEN), found)


def test_where_nothing_is_tried_the_power_of_the_settings_stays() -> None:
    assert with_chosen_objective(OPEN.model_copy(update={"tweedie_variance_power": 1.4}), tried({})) == OPEN.model_copy(
        update={"tweedie_variance_power": 1.4, "objective": "tweedie"}
    )


@pytest.mark.parametrize(("days", "some"), [(28 + 28 + 56, False), (28 + 28 + 56 + 1, True)])
def test_neither_one_window_nor_a_short_training_decides(days: int, *, some: bool) -> None:
    cutoff = START + timedelta(days=days - 1)
    assert try_objectives(PANEL, HISTORY, cutoff, OPEN).is_empty() is not some


def test_a_panel_that_sold_nothing_for_long_has_no_trial_and_is_backtested_as_before() -> None:
    slow = [1.0, *[0.0] * 9, 2.0] + [0.0] * 109 + [1.0, 0.0] * 40
    panel = demand_panel({("S1", "A"): slow, ("S1", "B"): slow})
    history = build_history(panel)
    assert try_objectives(panel, history, START + timedelta(days=115), OPEN).is_empty()


def test_a_backtest_tells_its_trials_and_learns_by_the_best() -> None:
    backtest = run_backtest(PANEL, HISTORY, OPEN, models=[CHALLENGER])
    assert trials(backtest.metrics)["objective"].sort().to_list() == sorted(CANDIDATES)
    assert backtest.metrics.filter(pl.col("segment").str.starts_with(TRIAL))["cutoff"].max() == backtest.folds[0].cutoff
    chosen = with_chosen_objective(OPEN, backtest.metrics)
    assert chosen.objective != "auto"
    named = run_backtest(PANEL, HISTORY, chosen, models=[CHALLENGER])
    assert named.forecasts.equals(backtest.forecasts)
    assert_frame_equal(without_trials(backtest.metrics), named.metrics)
