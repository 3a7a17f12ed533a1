"""Drift must be found where demand changed, and not where only the season or the assortment did."""

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.spatial.distance import jensenshannon  # type: ignore[import-untyped]
from scipy.stats import wasserstein_distance  # type: ignore[import-untyped]

from retail_platform.contracts import TABLES
from retail_platform.monitoring.drift import (
    CATEGORIES,
    NUMBERS,
    DriftSamples,
    DriftWindows,
    drift_holds,
    drift_rows,
    drift_samples,
    drift_windows,
    has_drifted,
)
from retail_platform.settings import DriftSettings

SETTINGS = DriftSettings(sample_rows=5_000)
LAST_DAY = date(2017, 12, 31)
MEASURED_AT = datetime(2018, 1, 1, 5)


def panel(days: int = 420, series: int = 60, growth: float = 1.0, seed: int = 4) -> pl.DataFrame:
    """Panel with a strong yearly and weekly season; in its last 28 days all demand is `growth` times the usual."""
    rng = np.random.default_rng(seed)
    dates = [LAST_DAY - timedelta(days=back) for back in range(days)][::-1]
    yearly = 1 + 0.8 * np.sin([2 * np.pi * d.timetuple().tm_yday / 365 for d in dates])
    weekly = np.array([1.0 + 0.5 * (d.weekday() >= 5) for d in dates])
    change = np.where(np.arange(days) >= days - 28, growth, 1.0)
    frames = []
    for number in range(series):
        promoted = rng.random(days) < 0.25
        rate = (3 + number % 7) * yearly * weekly * change * np.where(promoted, 2.0, 1.0)
        frames.append(
            pl.DataFrame(
                {
                    "store_id": f"s{number % 4}",
                    "item_id": f"i{number}",
                    "date": dates,
                    "units": rng.poisson(rate).astype(np.float32),
                    "listed": True,
                    "in_stock": rng.random(days) < 0.95,
                    "price": np.float32(2 + number % 5),
                    "on_promotion": promoted.astype(np.float32),
                    "promotion_depth": np.where(promoted, 0.2, 0.0).astype(np.float32),
                    "temperature": (15 - 10 * yearly + rng.normal(0, 3, days)).astype(np.float32),
                    "precipitation": pl.Series(np.full(days, np.nan)).fill_nan(None).cast(pl.Float32),
                }
            )
        )
    return pl.concat(frames)


def plain_distances(samples: DriftSamples) -> dict[str, float]:
    """The distances that the adapter measures with Evidently, straight from their definitions."""
    distances = {}
    for name in samples.numbers:
        before, after = (frame[name].drop_nulls().to_numpy() for frame in (samples.reference, samples.current))
        distances[name] = float(wasserstein_distance(before, after) / before.std())
    for name in samples.categories:
        values = pl.concat([samples.reference[name], samples.current[name]]).unique()
        shares = [[(frame[name] == v).mean() for v in values] for frame in (samples.reference, samples.current)]
        distances[name] = float(jensenshannon(*shares))
    return distances


def measure(demand: pl.DataFrame, settings: DriftSettings = SETTINGS) -> pl.DataFrame:
    windows = drift_windows(demand["date"].min(), LAST_DAY, settings)  # type: ignore[arg-type]
    assert windows is not None
    samples = drift_samples(demand, windows, settings)
    distances = plain_distances(samples)
    rows = drift_rows(samples, distances, windows, settings, run_id="run", measured_at=MEASURED_AT)
    return TABLES["monitoring.data_drift"].validate(rows)


def column(rows: pl.DataFrame, name: str) -> dict[str, object]:
    return rows.row(by_predicate=pl.col("column_name") == name, named=True)


def test_the_reference_is_the_same_weeks_of_last_year_with_two_weeks_to_either_side() -> None:
    windows = drift_windows(date(2015, 1, 1), LAST_DAY, DriftSettings(window_days=28))
    assert windows == DriftWindows(date(2017, 12, 4), LAST_DAY, date(2016, 11, 21), date(2017, 1, 15))
    assert windows.reference_start.weekday() == windows.current_start.weekday()


def test_a_young_panel_is_compared_with_the_weeks_directly_before() -> None:
    windows = drift_windows(date(2017, 9, 1), LAST_DAY, DriftSettings(window_days=31))
    assert windows == DriftWindows(date(2017, 12, 4), LAST_DAY, date(2017, 11, 6), date(2017, 12, 3))


def test_a_panel_of_less_than_two_windows_is_not_compared() -> None:
    assert drift_windows(date(2017, 11, 7), LAST_DAY, SETTINGS) is None
    assert drift_windows(date(2017, 11, 6), LAST_DAY, SETTINGS) is not None


def test_a_window_of_a_year_does_not_overlap_its_reference() -> None:
    windows = drift_windows(date(2010, 1, 1), LAST_DAY, DriftSettings(window_days=364))
    assert windows is not None
    assert windows.reference_end < windows.current_start


def test_the_season_is_no_drift() -> None:
    rows = measure(panel())
    assert not has_drifted(rows)
    assert not column(rows, "units_on_regular_days")["drifted"]


def test_without_last_year_the_season_would_have_been_drift() -> None:
    winter_against_autumn = measure(panel(days=80))
    assert column(winter_against_autumn, "units_on_regular_days")["drifted"]


def test_changed_demand_is_drift() -> None:
    rows = measure(panel(growth=1.8))
    assert column(rows, "units_on_regular_days")["drifted"]
    assert column(rows, "units_on_promoted_days")["drifted"]
    assert not column(rows, "price")["drifted"]
    assert column(rows, "*")["value"] == pytest.approx(2 / 6)


def test_more_promotions_do_not_change_the_demand_of_regular_days() -> None:
    promoted = (
        pl.col("date") > LAST_DAY - timedelta(days=28),
        pl.col("item_id").is_in([f"i{number}" for number in range(18)]),
    )
    demand = panel().with_columns(
        units=pl.when(*promoted).then(pl.col("units") * 2).otherwise("units"),
        on_promotion=pl.when(*promoted).then(pl.lit(1.0, pl.Float32)).otherwise("on_promotion"),
    )
    rows = measure(demand)
    assert column(rows, "on_promotion")["drifted"]
    assert not column(rows, "units_on_regular_days")["drifted"]


def test_new_items_are_left_out_and_counted() -> None:
    new = panel(series=90, growth=9.0).filter(pl.col("item_id").is_in([f"i{n}" for n in range(60, 90)]))
    demand = pl.concat([panel(), new.filter(pl.col("date") > date(2017, 6, 1))])
    rows = measure(demand)
    assert column(rows, "*")["note"] == "60 of 90 series lived through both windows"
    assert not has_drifted(rows)


def test_weather_is_measured_and_not_counted() -> None:
    hot = panel().with_columns(
        temperature=pl.when(pl.col("date") > LAST_DAY - timedelta(days=28))
        .then(35.0)
        .otherwise("temperature")
        .cast(pl.Float32)
    )
    rows = measure(hot)
    assert column(rows, "temperature")["drifted"]
    assert column(rows, "temperature")["note"] == "measured, not counted"
    assert column(rows, "*")["value"] == 0


def test_columns_that_cannot_be_measured_are_recorded_with_the_reason() -> None:
    rows = measure(panel())
    assert set(rows["column_name"]) == {*NUMBERS, *CATEGORIES, "*"}
    for name, reason in (
        ("precipitation", "only 0 values in the reference window and 0 values in the current window, 250 are needed"),
        ("listed", "always true in both windows"),
    ):
        assert (column(rows, name)["value"], column(rows, name)["note"]) == (None, reason)
        assert not column(rows, name)["drifted"]


def test_too_few_values_are_not_compared() -> None:
    few = measure(panel(series=20, growth=5.0))
    assert str(column(few, "units_on_promoted_days")["note"]).endswith("values in the current window, 250 are needed")
    assert column(few, "units_on_regular_days")["drifted"]


def test_nothing_to_measure_is_no_drift() -> None:
    demand = panel(series=3)
    windows = drift_windows(date(2016, 11, 1), LAST_DAY, SETTINGS)
    assert windows is not None
    late = demand.filter(pl.col("date") > date(2017, 12, 20))
    samples = drift_samples(late, windows, SETTINGS)
    assert (samples.numbers, samples.categories) == ([], [])
    rows = drift_rows(samples, {}, windows, SETTINGS, run_id="run", measured_at=MEASURED_AT)
    assert column(rows, "*")["value"] is None
    assert not has_drifted(TABLES["monitoring.data_drift"].validate(rows))


def test_samples_do_not_depend_on_the_order_of_rows() -> None:
    demand = panel(series=12)
    windows = drift_windows(date(2016, 11, 1), LAST_DAY, SETTINGS)
    assert windows is not None
    settings = DriftSettings(sample_rows=300)
    first, second = (
        drift_samples(rows, windows, settings) for rows in (demand, demand.sample(fraction=1, shuffle=True, seed=1))
    )
    assert len(first.reference) == len(first.current) == 300
    assert_frame_equal(first.reference, second.reference)
    assert_frame_equal(first.current, second.current)


def test_a_column_without_its_distance_is_named() -> None:
    samples = DriftSamples(pl.DataFrame(), pl.DataFrame(), dict.fromkeys([*NUMBERS][1:], "no values"), "")
    windows = DriftWindows(LAST_DAY, LAST_DAY, LAST_DAY, LAST_DAY)
    with pytest.raises(ValueError, match="units_on_regular_days, listed, in_stock"):
        drift_rows(samples, {}, windows, SETTINGS, run_id="run", measured_at=MEASURED_AT)


def measurements(*drifted: tuple[int, bool]) -> pl.DataFrame:
    """Measurements of the whole table: day in December up to which was measured, and what was found, in order."""
    samples = DriftSamples(pl.DataFrame(), pl.DataFrame(), dict.fromkeys([*NUMBERS, *CATEGORIES], "not measured"), "")
    frames = [
        drift_rows(
            samples,
            {},
            DriftWindows(date(2017, 12, 1), date(2017, 12, day), date(2016, 12, 1), date(2016, 12, day)),
            SETTINGS,
            run_id=f"run {number}",
            measured_at=MEASURED_AT + timedelta(hours=number),
        ).with_columns(drifted=pl.lit(found) & (pl.col("column_name") == "*"))
        for number, (day, found) in enumerate(drifted)
    ]
    return pl.concat([TABLES["monitoring.data_drift"].empty(), *frames])


@pytest.mark.parametrize(
    "found",
    [
        [(8, True), (9, True)],
        [(8, False), (9, True), (10, True)],
        [(8, False), (9, True), (8, True)],
    ],
)
def test_drift_holds_when_the_last_measurements_of_different_days_agree(found: list[tuple[int, bool]]) -> None:
    table = measurements(*found)
    assert drift_holds(table, DriftSettings(persistence=2))
    assert drift_holds(table.reverse(), DriftSettings(persistence=2))
    assert not drift_holds(table, DriftSettings(persistence=3))
    assert not drift_holds(table.with_columns(table_name=pl.lit("other")), DriftSettings(persistence=2))


@pytest.mark.parametrize(
    "found",
    [
        [],
        [(8, True)],
        [(8, True), (9, False)],
        [(8, True), (8, True)],
        [(8, True), (9, True), (9, False)],
    ],
)
def test_drift_does_not_hold_on_one_day_or_when_it_is_over(found: list[tuple[int, bool]]) -> None:
    assert not drift_holds(measurements(*found), DriftSettings(persistence=2))
