"""What trials choose: the objective, only where another is clearly better, and the number of trees, before all that is
scored.
"""

from datetime import timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.features.history import build_history
from retail_platform.forecasting.backtest import run_backtest
from retail_platform.forecasting.models import CHALLENGER, OBJECTIVES, fit_lightgbm
from retail_platform.forecasting.trials import (
    CANDIDATES,
    METRIC,
    OBJECTIVE_TRIAL,
    TREES_TRIAL,
    run_trials,
    stages,
    trials,
    with_choices,
    without_trials,
)
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, demand_panel, seasonal_panel

OPEN = ForecastSettings(trees=10, leaves=7, learning_rate=0.2, threads=1, cutoffs=3, objective="auto")
NAMED = OPEN.model_copy(update={"objective": "poisson"})
PANEL = seasonal_panel(series=4, days=240)
HISTORY = build_history(PANEL)


def tried(values: dict[str, float | None], kind: str = OBJECTIVE_TRIAL) -> pl.DataFrame:
    rows = [(CHALLENGER, START, kind + name, METRIC, value) for name, value in values.items()]
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
    chosen = with_choices(OPEN, tried(values))
    assert (chosen.objective, chosen.tweedie_variance_power) == expected


def test_an_objective_that_is_set_is_not_chosen_again() -> None:
    named = OPEN.model_copy(update={"objective": "l2", "tweedie_variance_power": 1.3, "early_stopping": False})
    assert with_choices(named, tried({"tweedie": 0.9, "poisson": 0.1})) == named


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"2": 0.9, "4": 0.7, "6": 0.8, "8": 0.71, "10": 0.72}, 4),
        ({"2": 0.9, "4": 0.7, "6": 0.7}, 4),
        ({"2": None, "10": 0.8}, 10),
        ({"3": 0.1, "10": 0.8}, 10),
        ({}, 10),
    ],
)
def test_the_fewest_trees_with_the_lowest_error_are_grown(values: dict[str, float | None], expected: int) -> None:
    assert with_choices(NAMED, tried(values, TREES_TRIAL)).trees == expected


def test_without_early_stopping_all_trees_are_grown() -> None:
    every_tree = NAMED.model_copy(update={"early_stopping": False})
    assert with_choices(every_tree, tried({"2": 0.1, "10": 0.8}, TREES_TRIAL)) == every_tree


@pytest.mark.parametrize(("trees", "expected"), [(300, [60, 120, 180, 240, 300]), (7, [2, 3, 5, 6, 7]), (1, [1])])
def test_a_training_is_judged_after_equal_parts_of_its_trees(trees: int, expected: list[int]) -> None:
    assert stages(trees) == expected


def test_a_model_as_it_was_after_some_trees_is_the_model_of_so_many_trees() -> None:
    cutoff = START + timedelta(days=200)
    full = fit_lightgbm(PANEL, HISTORY, cutoff, NAMED).predict_stages(PANEL, HISTORY, cutoff, [4, 10])
    for trees, forecast in full.items():
        short = fit_lightgbm(PANEL, HISTORY, cutoff, NAMED.model_copy(update={"trees": trees}))
        assert_frame_equal(short.predict_mean(PANEL, HISTORY, cutoff), forecast)


def test_trials_do_not_know_the_days_that_a_backtest_scores() -> None:
    cutoff = START + timedelta(days=140)
    later = pl.col("date") > cutoff + timedelta(days=28)
    changed = PANEL.with_columns(units=pl.when(later).then(pl.col("units") * 5 + 3).otherwise("units"))
    found = run_trials(PANEL, HISTORY, cutoff, OPEN)
    assert found.height == 2 * (len(CANDIDATES) + len(stages(OPEN.trees)))
    assert found["cutoff"].max() == cutoff
    assert_frame_equal(run_trials(changed, build_history(changed), cutoff, OPEN), found)


def test_where_nothing_is_tried_the_power_of_the_settings_stays() -> None:
    assert with_choices(OPEN.model_copy(update={"tweedie_variance_power": 1.4}), tried({})) == OPEN.model_copy(
        update={"tweedie_variance_power": 1.4, "objective": "tweedie"}
    )


@pytest.mark.parametrize(("days", "some"), [(28 + 28 + 56, False), (28 + 28 + 56 + 1, True)])
def test_neither_one_window_nor_a_short_training_decides(days: int, *, some: bool) -> None:
    cutoff = START + timedelta(days=days - 1)
    assert run_trials(PANEL, HISTORY, cutoff, OPEN).is_empty() is not some


def test_a_training_much_shorter_than_the_last_one_does_not_decide_when_to_stop() -> None:
    cutoff = START + timedelta(days=28 + 28 + 56)
    kinds = {}
    for days in (190, 240):
        panel = seasonal_panel(series=4, days=days)
        found = run_trials(panel, build_history(panel), cutoff, OPEN)
        kinds[days] = {segment.split()[0] for segment in found["segment"]}
    assert kinds == {190: {"objective", "trees"}, 240: {"objective"}}


def test_a_panel_that_sold_nothing_for_long_has_no_trial_and_is_backtested_as_before() -> None:
    slow = [1.0, *[0.0] * 9, 2.0] + [0.0] * 109 + [1.0, 0.0] * 40
    panel = demand_panel({("S1", "A"): slow, ("S1", "B"): slow})
    history = build_history(panel)
    assert run_trials(panel, history, START + timedelta(days=115), OPEN).is_empty()


def test_a_backtest_tells_its_trials_and_learns_by_the_best() -> None:
    backtest = run_backtest(PANEL, HISTORY, OPEN, models=[CHALLENGER])
    assert trials(backtest.metrics, OBJECTIVE_TRIAL)["tried"].sort().to_list() == sorted(CANDIDATES)
    assert set(trials(backtest.metrics, TREES_TRIAL)["tried"]) == {str(count) for count in stages(OPEN.trees)}
    of_trials = backtest.metrics.join(without_trials(backtest.metrics), on="segment", how="anti")
    assert of_trials["cutoff"].max() == backtest.folds[0].cutoff
    chosen = with_choices(OPEN, backtest.metrics)
    assert chosen.objective != "auto"
    assert str(chosen.trees) == trials(backtest.metrics, TREES_TRIAL)["tried"][0]
    named = run_backtest(PANEL, HISTORY, chosen.model_copy(update={"early_stopping": False}), models=[CHALLENGER])
    assert named.forecasts.equals(backtest.forecasts)
    assert_frame_equal(without_trials(backtest.metrics), named.metrics)
