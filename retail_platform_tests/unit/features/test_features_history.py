"""Hand-computed rows of the demand history."""

from datetime import timedelta

import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.features.history import build_history
from retail_platform_tests.panels import START, demand_panel

ONE = ("S1", "I1")


def at(history: pl.DataFrame, day: int, series: tuple[str, str] = ONE) -> dict[str, object]:
    own = (pl.col("store_id") == series[0]) & (pl.col("item_id") == series[1])
    return history.row(by_predicate=own & (pl.col("as_of_date") == START + timedelta(days=day)), named=True)


def test_the_history_keeps_its_contract_and_has_a_row_for_every_known_day_only() -> None:
    history = TABLES["features.demand_history"].validate(build_history(demand_panel({ONE: [1.0] * 40})))
    assert history["as_of_date"].to_list() == [START + timedelta(days=day) for day in range(40)]


def test_an_empty_panel_has_an_empty_history() -> None:
    history = build_history(TABLES["features.demand"].empty())
    assert TABLES["features.demand_history"].validate(history).is_empty()


def test_lags_and_windows_include_the_as_of_date() -> None:
    history = build_history(demand_panel({ONE: [float(day) for day in range(40)]}))
    row = at(history, 30)
    assert (row["units_lag_0"], row["units_lag_1"], row["units_lag_28"]) == (30, 29, 2)
    assert row["mean_7"] == pytest.approx((24 + 30) / 2)
    assert row["median_28"] == pytest.approx((3 + 30) / 2)
    assert row["weekday_mean_4"] == pytest.approx((30 + 23 + 16 + 9) / 4)
    assert row["days_since_first_sale"] == 30
    assert at(history, 3)["mean_7"] == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert at(history, 3)["units_lag_4"] is None


def test_days_out_of_stock_or_not_listed_are_missing_not_zero() -> None:
    units = [4.0, 0.0, 0.0, 2.0, 0.0]
    in_stock = [True, False, True, True, True]
    listed = [True, True, False, True, True]
    row = at(build_history(demand_panel({ONE: units}, ahead=0, in_stock=in_stock, listed=listed)), 4)
    assert (row["units_lag_4"], row["units_lag_3"], row["units_lag_2"], row["units_lag_1"]) == (4, None, None, 2)
    assert row["mean_7"] == pytest.approx(2.0)
    assert row["selling_share_28"] == pytest.approx(2 / 3)
    assert row["available_share_28"] == pytest.approx(3 / 5)


def test_a_zero_run_counts_available_days_since_the_last_sale() -> None:
    units = [1.0, 0.0, 0.0, 0.0, 5.0, 0.0]
    in_stock = [True, True, False, True, True, True]
    history = build_history(demand_panel({ONE: units}, ahead=0, in_stock=in_stock))
    assert history["zero_run"].to_list() == [0, 1, 1, 2, 0, 1]


def test_one_series_never_looks_into_another() -> None:
    two = {ONE: [1.0] * 5, ("S1", "I2"): [100.0] * 5}
    row = at(build_history(demand_panel(two)), 0, ("S1", "I2"))
    assert (row["units_lag_1"], row["mean_28"], row["std_7"]) == (None, 100, None)


def test_the_department_counts_its_whole_store_and_the_item_all_stores_that_have_it() -> None:
    units = {("S1", "A"): [1.0, 1.0], ("S1", "B"): [2.0, 2.0], ("S2", "A"): [5.0, 5.0]}
    history = build_history(demand_panel(units, ahead=0, department=["D"] * 6))
    assert at(history, 1, ("S1", "A"))["store_department_mean_28"] == pytest.approx(3.0)
    assert at(history, 1, ("S1", "A"))["item_stores_mean_28"] == pytest.approx(3.0)
    assert at(history, 1, ("S2", "A"))["store_department_mean_28"] == pytest.approx(5.0)


def test_a_department_that_is_not_known_is_a_department_too() -> None:
    history = build_history(demand_panel({ONE: [3.0, 3.0]}, ahead=0, department=[None, None]))
    assert history["store_department_mean_28"].to_list() == [3.0, 3.0]


def test_price_statistics_are_as_of() -> None:
    history = build_history(demand_panel({ONE: [1.0] * 4}, ahead=0, price=[2.0, 4.0, None, 3.0]))
    assert history["price_max"].to_list() == [2, 4, 4, 4]
    assert history["price_last"].to_list() == [2, 4, 4, 3]
    assert history["price_mean_28"].to_list() == [2, 3, 3, 3]


def test_days_that_have_not_arrived_are_missing_and_leave_the_series_in_place() -> None:
    panel = demand_panel({("S1", "I1"): [3.0] * 20, ("S2", "I1"): [5.0] * 20}, ahead=3)
    late = (pl.col("store_id") == "S2") & (pl.col("date") >= START + timedelta(days=18))
    history = build_history(panel.with_columns(units=pl.when(~late).then("units")))
    rows = history.filter(pl.col("as_of_date") == START + timedelta(days=19)).sort("store_id")
    assert rows["units_lag_0"].to_list() == [3.0, None]
    assert rows["units_lag_2"].to_list() == [3.0, 5.0]
    assert rows["mean_7"].to_list() == [3.0, 5.0]
    assert rows["store_department_mean_28"].to_list() == [3.0, 5.0]
