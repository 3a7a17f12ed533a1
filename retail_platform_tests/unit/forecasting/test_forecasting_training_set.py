"""Which day a target is paired with, and what a model sees of both."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from retail_platform.features.history import build_history
from retail_platform.forecasting.training_set import (
    FEATURES,
    HorizonBlock,
    Known,
    days_for_forecast,
    forecast_rows,
    horizon_blocks,
    learn_categories,
    matrix,
    training_rows,
)
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, demand_panel

ONE = ("S1", "I1")
COUNTING = demand_panel({ONE: [float(day) for day in range(420)]})
HISTORY = build_history(COUNTING)


def rows_at(block: HorizonBlock, day: int) -> dict[str, object]:
    rows = training_rows(Known.of(COUNTING, HISTORY), block, cutoff=START + timedelta(days=419), days=1000)
    return rows.row(by_predicate=pl.col("date") == START + timedelta(days=day), named=True)


@pytest.mark.parametrize(
    ("horizon", "blocks", "expected"),
    [
        (28, (7, 14, 28), [(1, 7), (8, 14), (15, 28)]),
        (10, (7, 14, 28), [(1, 7), (8, 10)]),
        (35, (7, 14, 28), [(1, 7), (8, 14), (15, 28), (29, 35)]),
        (1, (7,), [(1, 1)]),
    ],
)
def test_every_horizon_has_exactly_one_block(
    horizon: int, blocks: tuple[int, ...], expected: list[tuple[int, int]]
) -> None:
    found = horizon_blocks(ForecastSettings(horizon_days=horizon, horizon_blocks=blocks))
    assert [(block.first, block.last) for block in found] == expected


@pytest.mark.parametrize("last", [7, 10, 28])
def test_a_target_sees_its_series_as_of_the_blocks_last_horizon_before(last: int) -> None:
    row = rows_at(HorizonBlock(1, last), 400)
    assert row["units"] == 400
    assert row["units_lag_0"] == 400 - last
    assert row["mean_7"] == 400 - last - 3


@pytest.mark.parametrize(("last", "weeks_back"), [(7, 1), (10, 2), (14, 2), (28, 4)])
def test_weekday_means_are_of_the_targets_own_weekday(last: int, weeks_back: int) -> None:
    expected = np.mean([400 - 7 * week for week in range(weeks_back, weeks_back + 4)])
    assert rows_at(HorizonBlock(1, last), 400)["weekday_mean_4"] == pytest.approx(expected)


def test_last_year_is_the_same_weekday_about_364_days_before() -> None:
    row = rows_at(HorizonBlock(1, 7), 400)
    assert row["last_year_weekday_mean"] == pytest.approx(np.mean([43, 36, 29, 22]))
    assert row["last_year_mean"] == pytest.approx(np.mean(range(400 - 377, 400 - 349)))


def test_an_announced_price_is_taken_from_the_day_and_any_other_from_the_as_of_date() -> None:
    prices = [float(100 + day) for day in range(60)]
    for announced, expected in [(True, 150.0), (False, 143.0)]:
        panel = demand_panel({ONE: [1.0] * 60}, ahead=0, price=prices, price_announced=[announced] * 60)
        rows = training_rows(
            Known.of(panel, build_history(panel)), HorizonBlock(1, 7), cutoff=START + timedelta(days=59), days=60
        )
        row = rows.row(by_predicate=pl.col("date") == START + timedelta(days=50), named=True)
        assert row["price"] == expected
        assert row["price_to_max"] == pytest.approx(expected / 143.0)


def test_training_leaves_out_days_that_tell_nothing_of_demand() -> None:
    in_stock = [day not in (40, 41) for day in range(60)]
    listed = [day != 42 for day in range(60)]
    units = [0.0 if day in (40, 42) else 1.0 for day in range(60)]
    panel = demand_panel({ONE: units}, ahead=0, in_stock=in_stock, listed=listed)
    rows = training_rows(
        Known.of(panel, build_history(panel)), HorizonBlock(1, 7), cutoff=START + timedelta(days=50), days=20
    )
    days = [(day - START).days for day in rows["date"]]
    assert days == [day for day in range(31, 51) if day not in (40, 41, 42)]


def test_a_young_series_is_learned_from_as_it_will_be_forecast_as_of_its_first_day_at_the_earliest() -> None:
    panel = demand_panel({("S1", "OLD"): [1.0] * 60, ("S1", "NEW"): [9.0, 1.0, 2.0, 3.0]})
    block = HorizonBlock(8, 14)
    young = pl.col("item_id") == "NEW"
    ahead = forecast_rows(Known.of(panel, build_history(panel)), block, origin=START + timedelta(days=59)).filter(young)
    assert ahead.height == 7
    assert ahead["mean_28"].to_list() == [9.0, 9.0, 9.0, 9.0, 5.0, 4.0, 3.75]
    learned = training_rows(
        Known.of(panel, build_history(panel)), HorizonBlock(1, 7), cutoff=START + timedelta(days=59), days=60
    )
    assert learned.filter(young)["units"].to_list() == [1.0, 2.0, 3.0]


def test_a_series_that_begins_after_the_origin_is_not_forecast() -> None:
    panel = demand_panel({("S1", "OLD"): [1.0] * 60, ("S1", "NEW"): [9.0] * 4})
    ahead = forecast_rows(Known.of(panel, build_history(panel)), HorizonBlock(1, 7), origin=START + timedelta(days=50))
    assert ahead["item_id"].unique().to_list() == ["OLD"]
    assert ahead["date"].min() == START + timedelta(days=51)
    assert ahead.height == 7


def test_events_are_counted_in_days_up_to_a_reach() -> None:
    names = ["Fair" if day == 30 else None for day in range(80)]
    panel = demand_panel({ONE: [1.0] * 80}, ahead=0, event_name=names)
    rows = training_rows(
        Known.of(panel, build_history(panel)), HorizonBlock(1, 1), cutoff=START + timedelta(days=79), days=80
    )
    by_day = {(row["date"] - START).days: row for row in rows.iter_rows(named=True)}
    assert (by_day[28]["days_to_event"], by_day[28]["days_since_event"]) == (2, None)
    assert (by_day[30]["days_to_event"], by_day[30]["days_since_event"]) == (0, 0)
    assert (by_day[58]["days_since_event"], by_day[59]["days_since_event"]) == (28, None)


def test_names_become_their_place_in_the_list_and_unknown_ones_are_missing() -> None:
    rows = forecast_rows(Known.of(COUNTING, HISTORY), HorizonBlock(1, 7), origin=START + timedelta(days=419))
    categories = learn_categories(rows)
    assert categories["store_id"] == ["S1"]
    store = FEATURES.index("store_id")
    numbers = matrix(rows, categories)
    assert numbers.shape == (7, len(FEATURES))
    assert numbers.dtype == np.float32
    assert set(numbers[:, store]) == {0.0}
    assert np.isnan(matrix(rows, {**categories, "store_id": ["elsewhere"]})[:, store]).all()


@pytest.mark.parametrize("horizon", [28, 35, 360])
def test_a_forecast_needs_no_other_days_of_the_history_than_it_says(horizon: int) -> None:
    settings = ForecastSettings(horizon_days=horizon)
    long = {ONE: [float(day % 11) for day in range(1200)], ("S1", "YOUNG"): [3.0] * 9}
    panel = demand_panel(long, ahead=horizon)
    history, origin, blocks = build_history(panel), START + timedelta(days=1199), horizon_blocks(settings)
    of_the_day = pl.any_horizontal(pl.col("as_of_date").is_between(*days) for days in days_for_forecast(origin, blocks))
    recent = panel.filter(pl.col("date") >= origin - timedelta(days=horizon + 28))
    known, whole = Known.of(recent, history.filter(of_the_day)), Known.of(panel, history)
    for block in blocks:
        rows = forecast_rows(whole, block, origin=origin)
        assert rows.height == 2 * (block.last - block.first + 1)
        assert forecast_rows(known, block, origin=origin).equals(rows)
