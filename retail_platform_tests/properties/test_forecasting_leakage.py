"""Nothing that became known after the forecast origin can enter a feature, a model or a forecast."""

from datetime import timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.features.history import build_history
from retail_platform.forecasting.models import MODELS, silent
from retail_platform.forecasting.totals import StoreTotals
from retail_platform.forecasting.training_set import HorizonBlock, Known, forecast_rows, training_rows
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, seasonal_panel

DAYS = 120
PANEL = seasonal_panel(series=4, days=DAYS).with_columns(price_announced=pl.col("item_id") < "I02")
HISTORY = build_history(PANEL)
QUICK = ForecastSettings(trees=5, leaves=7, threads=1)

KNOWN_ONLY_AFTERWARDS = (
    "units",
    "in_stock",
    "price",
    "temperature",
    "precipitation",
    "consumer_prices",
    "unemployment",
)


def another_future(panel: pl.DataFrame, after: int, seed: int) -> pl.DataFrame:
    """The panel with everything that nobody could know shuffled among the known days later than `after`, including
    the prices that were not announced."""
    later = (pl.col("date") > START + timedelta(days=after)) & (pl.col("date") < START + timedelta(days=DAYS))
    columns = []
    for name in KNOWN_ONLY_AFTERWARDS:
        changed = ~pl.col(name) if name == "in_stock" else (pl.col(name) * 2 + seed).shuffle(seed).cast(pl.Float32)
        may_change = later & ~pl.col("price_announced") if name == "price" else later
        columns.append(pl.when(may_change).then(changed).otherwise(pl.col(name)).alias(name))
    # Shuffling may carry nulls of the horizon into known days; those stay known.
    return panel.with_columns(columns).with_columns(
        units=pl.when(later).then(pl.col("units").fill_null(5)).otherwise("units")
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(40, DAYS - 2), st.sampled_from([1, 7, 10, 28]), st.integers(0, 1000))
def test_what_a_model_sees_of_a_target_does_not_depend_on_anything_after_its_as_of_date(
    day: int, last: int, seed: int
) -> None:
    block = HorizonBlock(1, last)
    changed = another_future(PANEL, day - last, seed)
    origin = START + timedelta(days=day - last)
    seen = forecast_rows(Known.of(PANEL, HISTORY), block, origin=origin).drop("units", "listed")
    assert (
        forecast_rows(Known.of(changed, build_history(changed)), block, origin=origin)
        .drop("units", "listed")
        .equals(seen)
    )


@settings(max_examples=10, deadline=None)
@given(st.integers(60, DAYS - 2), st.integers(0, 1000))
def test_what_a_model_learns_up_to_a_cutoff_does_not_depend_on_anything_after_it(day: int, seed: int) -> None:
    cutoff = START + timedelta(days=day)
    changed = another_future(PANEL, day, seed)
    for block in (HorizonBlock(1, 7), HorizonBlock(8, 28)):
        learned = training_rows(Known.of(PANEL, HISTORY), block, cutoff=cutoff, days=400)
        assert training_rows(Known.of(changed, build_history(changed)), block, cutoff=cutoff, days=400).equals(learned)


@settings(max_examples=6, deadline=None)
@given(st.integers(70, DAYS - 2), st.integers(0, 1000))
def test_models_and_forecasts_are_the_same_whatever_the_future_holds(day: int, seed: int) -> None:
    cutoff = START + timedelta(days=day)
    changed = another_future(PANEL, day, seed)
    changed_history = build_history(changed)
    for fit in MODELS.values():
        model = fit(PANEL, HISTORY, cutoff, QUICK, silent)
        again = fit(changed, changed_history, cutoff, QUICK, silent)
        assert again.to_files() == model.to_files()
        forecast = model.predict_mean(PANEL, HISTORY, cutoff)
        assert again.predict_mean(changed, changed_history, cutoff).equals(forecast)


@settings(max_examples=10, deadline=None)
@given(st.integers(70, DAYS - 2), st.integers(0, 1000))
def test_totals_and_what_is_aligned_to_them_are_the_same_whatever_the_future_holds(day: int, seed: int) -> None:
    cutoff = START + timedelta(days=day)
    changed = another_future(PANEL, day, seed)
    totals, again = (StoreTotals.fit(panel, cutoff, QUICK) for panel in (PANEL, changed))
    assert again == totals
    keys = ("store_id", "item_id", "department", "category", "date")
    forecast = PANEL.filter(pl.col("date") > cutoff).select(*keys, mean=pl.lit(3.0))
    assert again.align(forecast, changed, cutoff).equals(totals.align(forecast, PANEL, cutoff))
