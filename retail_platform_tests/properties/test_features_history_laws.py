"""The history equals a slow plain reference, keeps its contract and never looks ahead."""

import math
from datetime import timedelta

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.contracts import TABLES
from retail_platform.features.history import LAGS, SPANS, WEEKS, WINDOWS, build_history
from retail_platform_tests.panels import demand_panel

UNITS = st.one_of(st.integers(0, 20).map(float), st.sampled_from([0.0, 0.1, 0.35, 1e5, 3e6]))
SERIES = st.lists(st.tuples(UNITS, st.booleans(), st.booleans()), min_size=1, max_size=60)
PANELS = st.lists(SERIES, min_size=1, max_size=3)


def panel_of(series: list[list[tuple[float, bool, bool]]]) -> pl.DataFrame:
    days = [day for own in series for day in own]
    return demand_panel(
        {("S1", f"I{number}"): [units for units, _, _ in own] for number, own in enumerate(series)},
        ahead=0,
        listed=[listed for _, listed, _ in days],
        in_stock=[in_stock for _, _, in_stock in days],
    )


def reference(known: list[tuple[float, bool, bool]]) -> dict[str, float | None]:
    """The statistics of one series at its last day, written out plainly."""
    seen = [np.float32(u).item() if listed and stock else None for u, listed, stock in known]

    def some(values: list[float | None]) -> list[float]:
        return [value for value in values if value is not None]

    def mean(values: list[float | None]) -> float | None:
        return float(np.mean(some(values))) if some(values) else None

    def spread(values: list[float | None]) -> float | None:
        return float(np.std(some(values), ddof=1)) if len(some(values)) > 1 else None

    def weighted(span: int) -> float | None:
        kept = some(seen)
        weights = [(1 - 2 / (span + 1)) ** age for age in range(len(kept))][::-1]
        return float(np.average(kept, weights=weights)) if kept else None

    sold = [None if value is None else float(value > 0) for value in seen]
    result = {f"units_lag_{lag}": seen[-1 - lag] if lag < len(seen) else None for lag in LAGS}
    result |= {f"mean_{days}": mean(seen[-days:]) for days in WINDOWS}
    result |= {f"weekday_mean_{weeks}": mean(seen[::-7][:weeks]) for weeks in WEEKS}
    result |= {f"std_{days}": spread(seen[-days:]) for days in (7, 28)}
    result |= {"median_28": float(np.median(some(seen[-28:]))) if some(seen[-28:]) else None}
    result |= {"upper_28": float(np.quantile(some(seen[-28:]), 0.9)) if some(seen[-28:]) else None}
    result |= {f"selling_share_{days}": mean(sold[-days:]) for days in (28, 112)}
    result |= {f"weighted_mean_{span}": weighted(span) for span in SPANS}
    return result


@settings(max_examples=60, deadline=None)
@given(PANELS)
def test_the_history_equals_the_plain_reference_and_keeps_its_contract(
    series: list[list[tuple[float, bool, bool]]],
) -> None:
    history = TABLES["features.demand_history"].validate(build_history(panel_of(series)))
    for number, own in enumerate(series):
        rows = history.filter(pl.col("item_id") == f"I{number}").sort("as_of_date")
        largest = max(units for units, _, _ in own)
        for name, expected in reference(own).items():
            found = rows[name][-1]
            assert (found is None) == (expected is None), name
            if expected is not None:
                assert math.isclose(found, expected, rel_tol=1e-4, abs_tol=1e-3 + 1e-6 * largest), name


@settings(max_examples=40, deadline=None)
@given(PANELS, st.integers(0, 59))
def test_nothing_after_a_day_changes_the_history_of_that_day(
    series: list[list[tuple[float, bool, bool]]], day: int
) -> None:
    panel = panel_of(series)
    first: object = panel["date"].min()
    as_of = first + timedelta(days=day)  # type: ignore[operator]
    later = pl.col("date") > as_of
    changed = panel.with_columns(
        units=pl.when(later).then(pl.col("units") * 3 + 7).otherwise("units"),
        price=pl.when(later).then(99.0).otherwise("price").cast(pl.Float32),
        in_stock=pl.col("in_stock") ^ later,
        on_promotion=pl.when(later).then(1.0).otherwise("on_promotion").cast(pl.Float32),
        consumer_prices=pl.when(later).then(1.0).otherwise("consumer_prices").cast(pl.Float32),
        temperature=pl.when(later).then(None).otherwise("temperature"),
    )
    until = pl.col("as_of_date") <= as_of
    assert build_history(changed).filter(until).equals(build_history(panel).filter(until))
