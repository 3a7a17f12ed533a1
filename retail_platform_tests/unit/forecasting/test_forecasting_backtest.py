"""The backtest: which origins, what it hands on, and that it learns from the past only."""

from datetime import datetime, timedelta

import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.features.history import build_history
from retail_platform.forecasting.backtest import (
    Backtest,
    NotEnoughHistory,
    backtest_tables,
    plan_folds,
    run_backtest,
)
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, demand_panel, seasonal_panel

SETTINGS = ForecastSettings(trees=10, leaves=7, learning_rate=0.2, threads=1, objective="tweedie")
PANEL = seasonal_panel(series=10, days=200)


@pytest.fixture(scope="module")
def backtest() -> Backtest:
    return run_backtest(PANEL, build_history(PANEL), SETTINGS)


def folds(days: int) -> list[tuple[int, bool]]:
    planned = plan_folds(demand_panel({("S1", "A"): [1.0] * days}), SETTINGS)
    return [((fold.cutoff - START).days + 1, fold.scored) for fold in planned]


def test_origins_lie_a_horizon_apart_and_one_unscored_fold_comes_before_them() -> None:
    steps = [168, 140, 112, 84, 56, 28]
    assert folds(365) == [(365 - step, step < 168) for step in steps]


def test_a_panel_of_more_than_a_year_has_a_fold_of_the_same_season_a_year_before() -> None:
    steps = [364 + 28, 364, 112, 84, 56, 28]
    assert folds(448) == [(448 - step, step < 392) for step in steps]
    assert folds(447)[0] == (447 - 168, False)


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (168, [(56, False), (84, True), (112, True), (140, True)]),
        (167, [(83, False), (111, True), (139, True)]),
        (112, [(56, False), (84, True)]),
        (84, [(56, True)]),
    ],
)
def test_a_short_panel_gets_fewer_folds(days: int, expected: list[tuple[int, bool]]) -> None:
    assert folds(days) == expected


@pytest.mark.parametrize("days", [1, 83])
def test_a_panel_that_is_too_short_says_how_many_days_are_needed(days: int) -> None:
    with pytest.raises(NotEnoughHistory, match=f"holds {days} known days; a backtest needs 84"):
        folds(days)


def test_an_empty_panel_is_too_short() -> None:
    with pytest.raises(NotEnoughHistory, match="holds 0 known days"):
        plan_folds(TABLES["features.demand"].empty(), SETTINGS)


def test_the_shortest_panel_that_is_planned_can_be_run() -> None:
    panel = demand_panel({("S1", "A"): [1.0, 2.0] * 42, ("S1", "B"): [0.5, 0.0, 3.0] * 28})
    short = run_backtest(panel, build_history(panel), SETTINGS)
    assert set(short.forecasts["model"]) == set(SETTINGS.models)


def test_the_tables_keep_their_contracts(backtest: Backtest) -> None:
    forecasts, metrics = backtest_tables(
        backtest, backtest_id="b", shard="all", computed_at=datetime(2017, 8, 1, 12, 0)
    )
    TABLES["model.backtest_forecasts"].validate(forecasts)
    TABLES["model.backtest_metrics"].validate(metrics)
    assert forecasts.height == 3 * 4 * 10 * 28
    segments = set(metrics["segment"])
    assert {"all", "horizon 1-7", "horizon 8-14", "horizon 15-21", "horizon 22-28"} <= segments
    assert {"department GROCERY", "class AX", "level total", "level item"} <= segments
    both = metrics.filter(pl.col("metric").is_in(["wrmsse", "wspl"]))
    assert set(both.filter(pl.col("segment") == "all")["model"]) == set(SETTINGS.models)


def test_horizons_count_from_the_cutoff(backtest: Backtest) -> None:
    days = (pl.col("date") - pl.col("cutoff")).dt.total_days()
    assert backtest.forecasts.select((days == pl.col("horizon")).all()).item()


def test_the_unscored_fold_leaves_errors_but_no_forecasts(backtest: Backtest) -> None:
    unscored = [fold.cutoff for fold in backtest.folds if not fold.scored]
    assert unscored == [START + timedelta(days=199 - 140)]
    assert backtest.errors["cutoff"].n_unique() == 5
    assert not set(unscored) & set(backtest.forecasts["cutoff"])


def test_a_fold_knows_nothing_of_the_days_after_its_cutoff(backtest: Backtest) -> None:
    middle = backtest.folds[2].cutoff
    future = pl.col("date") > middle
    changed = PANEL.with_columns(units=pl.when(future).then(pl.col("units") * 5 + 3).otherwise("units"))
    again = run_backtest(changed, build_history(changed), SETTINGS)
    until = pl.col("cutoff") <= middle
    assert again.forecasts.filter(until).drop("units").equals(backtest.forecasts.filter(until).drop("units"))
    assert not again.forecasts.drop("units").equals(backtest.forecasts.drop("units"))


def test_days_that_tell_nothing_of_demand_are_not_scored() -> None:
    last = START + timedelta(days=199)
    panel = PANEL.with_columns(
        in_stock=pl.col("date") != last,
        units=pl.when(pl.col("date") == last).then(0.0).otherwise("units").cast(pl.Float32),
    )
    forecasts = run_backtest(panel, build_history(panel), SETTINGS).forecasts
    assert forecasts.filter(pl.col("date") == last)["units"].null_count() == 3 * 10
    assert forecasts.filter(pl.col("date") < last)["units"].null_count() == 0


def test_every_fold_is_announced() -> None:
    lines: list[str] = []
    run_backtest(PANEL, build_history(PANEL), SETTINGS, lines.append)
    assert lines[0].startswith("fold 1 of 5: forecasting 28 days after")
