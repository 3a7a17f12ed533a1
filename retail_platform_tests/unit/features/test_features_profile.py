"""Patterns, seasons, stock-outs and movers by small examples."""

from datetime import date, timedelta

import polars as pl
import pytest

from retail_platform.features.profile import demand_patterns, movers, seasonal_indices, stock_outs, weekly_totals
from retail_platform_tests.panels import START, demand_panel

DAYS = 56


def pattern_of(units: list[float]) -> dict[str, object]:
    return demand_patterns(demand_panel({("S1", "A"): units})).row(0, named=True)


@pytest.mark.parametrize(
    ("units", "interval", "variation", "pattern"),
    [
        ([2.0] * 12, 1.0, 0.0, "smooth"),
        # Mean 4, variance 9.
        ([1.0, 7.0] * 6, 1.0, 9 / 16, "erratic"),
        ([2.0, 0, 0] * 4, 3.0, 0.0, "intermittent"),
        ([1.0, 0, 0, 7.0, 0, 0] * 2, 3.0, 9 / 16, "lumpy"),
        ([0.0] * 12, None, None, "no sales"),
    ],
)
def test_patterns_are_told_by_interval_and_variation(
    units: list[float], interval: float | None, variation: float | None, pattern: str
) -> None:
    found = pattern_of(units)
    assert found["interval"] == (None if interval is None else pytest.approx(interval))
    assert found["variation"] == (None if variation is None else pytest.approx(variation))
    assert found["pattern"] == pattern


def test_days_out_of_stock_do_not_make_a_series_sparse() -> None:
    panel = demand_panel({("S1", "A"): [2.0, 0, 0, 0, 0, 0] * 2}, ahead=0).with_columns(in_stock=pl.col("units") > 0)
    found = demand_patterns(panel).row(0, named=True)
    assert (found["days"], found["interval"], found["pattern"]) == (2, 1.0, "smooth")


def test_weekdays_and_years_are_relative_to_all_days() -> None:
    week = [1.0, 1, 1, 1, 1, 4, 5]
    found = seasonal_indices(demand_panel({("S1", "A"): week * 8, ("S1", "B"): [0.0] * 56}))
    weekdays = found.filter(cut="weekday")
    assert weekdays["index"].to_list() == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 2.0, 2.5])
    assert weekdays["days"].to_list() == [8] * 7
    assert found.filter(cut="year").select("period", "index").rows() == [(2017, 1.0)]


def test_a_month_is_relative_to_its_own_year() -> None:
    # Twice as much in the second year, and in each twice as much in December as in November.
    days = [
        (date(year, month, 1) + timedelta(days=day), year, month)
        for year in (2016, 2017)
        for month in (11, 12)
        for day in range(30)
    ]
    units = [float((year - 2015) * (month - 10)) for _, year, month in days]
    panel = demand_panel({("S1", "A"): units}, ahead=0).with_columns(date=pl.Series([day for day, *_ in days]))
    found = seasonal_indices(panel)
    months = found.filter(cut="month")
    assert months["period"].to_list() == [11, 12]
    assert months["index"].to_list() == pytest.approx([2 / 3, 4 / 3])
    assert found.filter(cut="year")["index"].to_list() == pytest.approx([2 / 3, 4 / 3])


def test_stock_outs_are_shares_of_listed_days() -> None:
    panel = demand_panel({("S1", "A"): [0.0] * 10, ("S1", "B"): [1.0] * 10}, ahead=5)
    panel = panel.with_columns(
        in_stock=pl.col("item_id") == "B",
        listed=(pl.col("item_id") == "B") | (pl.col("date") < START + timedelta(days=4)),
        department=pl.when(pl.col("item_id") == "B").then(pl.lit("DAIRY")),
    )
    assert stock_outs(panel).rows() == [("(none)", 4, 4, 1.0), ("DAIRY", 10, 0, 0.0)]


def test_movers_compare_two_spans_of_equal_length() -> None:
    panel = demand_panel(
        {
            ("S1", "UP"): [1.0] * 28 + [3.0] * 28,
            ("S1", "DOWN"): [9.0] * 28 + [4.0] * 28,
            ("S1", "SAME"): [2.0] * 56,
            ("S1", "NEW"): [5.0] * 10,
        }
    )
    assert movers(panel).rows() == [("S1", "DOWN", 9.0, 4.0, -5.0), ("S1", "UP", 1.0, 3.0, 2.0)]
    assert movers(panel, most=1).height == 1
    assert movers(panel.clear()).is_empty()


def test_only_whole_weeks_are_summed() -> None:
    weeks = weekly_totals(demand_panel({("S1", "A"): [1.0] * 16, ("S1", "B"): [2.0] * 16}))
    assert weeks.select("week", "units").rows() == [(START, 21.0), (START + timedelta(days=7), 21.0)]
