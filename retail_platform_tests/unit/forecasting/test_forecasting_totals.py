"""Totals of a store's categories: what the calendar does to them, and the alignment of forecasts of series."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from retail_platform.forecasting.totals import LARGEST_CORRECTION, LEVEL_DAYS, StoreTotals
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, demand_panel, seasonal_panel

SETTINGS = ForecastSettings(totals_share=1)
WEEK = np.array([0.7, 0.8, 0.9, 1.0, 1.1, 1.5, 1.0])
YEARS = 3 * 364


def panel_of(factors: np.ndarray, *, ahead: int = 28, level: float = 100.0, noise: float = 0.02) -> pl.DataFrame:
    """Two series of one category that sell `level` x factors together, the last `ahead` days unknown."""
    random = np.random.default_rng(1)
    sold = level * factors[: factors.size - ahead]
    sold = sold * np.exp(random.normal(0, noise, sold.size))
    return demand_panel({("S1", "A"): (0.7 * sold).tolist(), ("S1", "B"): (0.3 * sold).tolist()}, ahead=ahead)


def in_both_series(values: np.ndarray) -> list[object]:
    return [*values.tolist(), *values.tolist()]


def origin_of(panel: pl.DataFrame) -> date:
    return panel.filter(pl.col("units").is_not_null())["date"].max()  # type: ignore[return-value]


def total(panel: pl.DataFrame) -> np.ndarray:
    origin = origin_of(panel)
    return StoreTotals.fit(panel, origin, SETTINGS).forecast(panel, origin)["total"].to_numpy()


def flat(panel: pl.DataFrame, mean: float = 10.0) -> pl.DataFrame:
    """A forecast of the same mean for every series and day."""
    return panel.filter(pl.col("date") > origin_of(panel)).select(
        "store_id", "item_id", "department", "category", "date", mean=pl.lit(mean)
    )


def test_the_weekday_is_learned() -> None:
    factors = np.resize(WEEK, 200)
    assert total(panel_of(factors)) == pytest.approx(100 * factors[-28:], rel=0.05)


def test_a_pay_day_and_an_event_are_learned_with_the_day_before_it() -> None:
    days = YEARS + 28
    when = [START + timedelta(days=number) for number in range(days)]
    pay = np.array([day.day in (3, 17) for day in when])
    feast = np.array([(day.month, day.day) == (1, 20) for day in when])
    factors = np.resize(WEEK, days) * np.where(pay, 1.3, 1) * np.where(feast, 0.5, 1)
    factors *= np.where(np.roll(feast, -1), 1.6, 1)
    events = np.where(feast, "FEAST", None)
    panel = panel_of(factors).with_columns(
        event_name=pl.Series(in_both_series(events), dtype=pl.String), is_payday=pl.Series(in_both_series(pay))
    )
    assert feast[-28:].any()
    assert total(panel) == pytest.approx(100 * factors[-28:], rel=0.16)


def test_the_season_of_the_years_before_is_followed_and_no_trend_is_continued() -> None:
    days = YEARS + 28
    year = np.array([(START + timedelta(days=number)).timetuple().tm_yday for number in range(days)]) / 365.25
    season = np.resize(WEEK, days) * np.exp(0.3 * np.sin(2 * np.pi * year))
    assert total(panel_of(season)) == pytest.approx(100 * season[-28:], rel=0.06)
    growth = np.resize(WEEK, days) * np.exp(np.arange(days) / days)
    assert total(panel_of(growth)).max() < 1.02 * 100 * growth[:-28].max()


def test_a_store_that_has_always_been_closed_on_an_event_is_forecast_as_closed() -> None:
    days = YEARS + 20
    when = [START + timedelta(days=number) for number in range(days)]
    closed = np.array([(day.month, day.day) == (1, 1) for day in when])
    factors = np.resize(WEEK, days) * ~closed
    events = pl.Series(in_both_series(np.where(closed, "NEW YEAR", None)), dtype=pl.String)
    panel = panel_of(factors).with_columns(event_name=events)
    assert closed[-28:].sum() == 1
    forecast = total(panel)
    assert (forecast[closed[-28:]] == 0).all()
    # And the closed days of the past have not lowered the level.
    assert forecast == pytest.approx(100 * factors[-28:], rel=0.06)


def test_a_weekday_on_which_a_store_never_opens_stays_so() -> None:
    week = np.array([1.0, 1.0, 1.0, 1.0, 1.2, 1.6, 0.0])
    factors = np.resize(week, 300)
    assert total(panel_of(factors)) == pytest.approx(100 * factors[-28:], rel=0.06, abs=2)


def test_aligned_series_add_up_to_their_total_and_keep_their_shares() -> None:
    panel = panel_of(np.resize(WEEK, 228), level=22.0)
    origin = origin_of(panel)
    totals = StoreTotals.fit(panel, origin, SETTINGS)
    aligned = totals.align(flat(panel), panel, origin)
    sums = aligned.group_by("date").agg(pl.col("mean").sum()).sort("date")
    assert sums["mean"].to_numpy() == pytest.approx(totals.forecast(panel, origin)["total"].to_numpy())
    shares = aligned.with_columns(share=pl.col("mean") / pl.col("mean").sum().over("date"))["share"]
    assert shares.to_numpy() == pytest.approx(0.5)


def test_a_share_of_a_half_leaves_the_sum_half_way_between_its_own_and_the_total() -> None:
    panel = panel_of(np.resize(WEEK, 228), level=22.0)
    origin = origin_of(panel)
    half = StoreTotals.fit(panel, origin, ForecastSettings(totals_share=0.5))
    sums = half.align(flat(panel), panel, origin).group_by("date").agg(pl.col("mean").sum()).sort("date")
    expected = np.sqrt(20 * half.forecast(panel, origin)["total"].to_numpy())
    assert sums["mean"].to_numpy() == pytest.approx(expected)


def test_no_day_is_corrected_by_more_than_the_largest_correction() -> None:
    panel, origin = panel_of(np.resize(WEEK, 228)), START + timedelta(days=199)
    totals = StoreTotals.fit(panel, origin, SETTINGS)
    for mean, bound in ((1.0, LARGEST_CORRECTION), (1000.0, 1000 / LARGEST_CORRECTION)):
        assert totals.align(flat(panel, mean), panel, origin)["mean"].to_numpy() == pytest.approx(bound)


def test_a_series_alone_in_its_category_and_a_store_that_was_not_learned_stay_as_they_are() -> None:
    alone = demand_panel({("S1", "A"): [50.0] * 200})
    new = panel_of(np.resize(WEEK, 228)).with_columns(store_id=pl.lit("S2"))
    for learned, panel in ((alone, alone), (panel_of(np.resize(WEEK, 228)), new)):
        origin = origin_of(panel)
        totals = StoreTotals.fit(learned, origin, SETTINGS)
        assert totals.align(flat(panel), panel, origin).equals(flat(panel))


def test_where_categories_are_the_series_their_departments_are_the_totals() -> None:
    panel = panel_of(np.resize(WEEK, 228), level=22.0).with_columns(category="item_id")
    origin = origin_of(panel)
    totals = StoreTotals.fit(panel, origin, SETTINGS)
    assert totals.forecast(panel, origin)["node"].unique().to_list() == ["GROCERY"]
    sums = totals.align(flat(panel), panel, origin).group_by("date").agg(pl.col("mean").sum()).sort("date")
    assert sums["mean"].to_numpy() == pytest.approx(totals.forecast(panel, origin)["total"].to_numpy())


def test_a_forecast_reads_the_last_weeks_only() -> None:
    panel = panel_of(np.resize(WEEK, YEARS))
    origin = origin_of(panel)
    totals = StoreTotals.fit(panel, origin, SETTINGS)
    recent = panel.filter(pl.col("date") > origin - timedelta(days=LEVEL_DAYS))
    assert totals.forecast(recent, origin).equals(totals.forecast(panel, origin))


@pytest.mark.parametrize("days", [1, 2, 9, 40])
def test_short_panels_have_a_finite_forecast(days: int) -> None:
    forecast = total(panel_of(np.resize(WEEK, days + 28)))
    assert np.isfinite(forecast).all()
    assert (forecast >= 0).all()


def test_days_whose_sales_have_not_arrived_are_passed_over() -> None:
    panel = panel_of(np.resize(WEEK, 228))
    late = (pl.col("item_id") == "A") & (pl.col("date") > START + timedelta(days=193))
    missing = panel.with_columns(units=pl.when(~late).then("units"))
    origin = origin_of(panel)
    forecast = StoreTotals.fit(missing, origin, SETTINGS).forecast(missing, origin)["total"].to_numpy()
    assert forecast == pytest.approx(100 * np.resize(WEEK, 228)[-28:], rel=0.06)


def test_totals_are_the_same_after_being_written_and_read_and_in_any_order_of_the_panel() -> None:
    panel = seasonal_panel()
    origin = START + timedelta(days=150)
    totals = StoreTotals.fit(panel, origin, SETTINGS)
    assert StoreTotals.from_json(totals.to_json()) == totals
    assert StoreTotals.fit(panel.reverse(), origin, SETTINGS) == totals


def test_categories_that_are_not_known_give_way_to_departments_and_these_to_the_whole_store() -> None:
    panel = panel_of(np.resize(WEEK, 228), level=22.0)
    origin = origin_of(panel)
    for unknown in (["category"], ["category", "department"]):
        bare = panel.with_columns(pl.lit(None, pl.String).alias(name) for name in unknown)
        aligned = StoreTotals.fit(bare, origin, SETTINGS).align(flat(bare), bare, origin)
        assert not aligned.equals(flat(bare))
