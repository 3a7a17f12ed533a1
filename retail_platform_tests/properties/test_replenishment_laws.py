"""Laws that order proposals keep for any forecast and any stock."""

from datetime import date, datetime, timedelta
from math import isfinite
from random import Random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import QUANTILES
from retail_platform.replenishment.orders import propose_orders
from retail_platform.settings import ReplenishmentSettings

ORIGIN = date(2017, 3, 5)
HORIZON = 5
UNITS = st.floats(0, 1e6, allow_subnormal=False) | st.integers(0, 5).map(float)

days = st.tuples(UNITS, st.lists(UNITS, min_size=len(QUANTILES), max_size=len(QUANTILES)).map(sorted))
demand = st.lists(st.lists(days, min_size=HORIZON, max_size=HORIZON), min_size=1, max_size=6)
parameters = st.builds(
    ReplenishmentSettings,
    service_level=st.floats(0.01, 0.999),
    lead_time_days=st.integers(0, 8),
    review_period_days=st.integers(1, 3),
    case_pack=st.integers(1, 24),
    demand_autocorrelation=st.floats(0, 0.95),
    sample_paths=st.integers(50, 90),
)
stock_level = st.none() | st.tuples(st.floats(-100, 1e5), st.none() | st.floats(0, 1e5))
stock_levels = st.lists(stock_level, min_size=6, max_size=6)


def forecast_of(series: list[list[tuple[float, list[float]]]]) -> pl.DataFrame:
    rows = [
        {
            "forecast_origin": ORIGIN,
            "store_id": "s",
            "item_id": f"i{number}",
            "date": ORIGIN + timedelta(days=horizon),
            "horizon": horizon,
            "mean": mean,
            **dict(zip(QUANTILES, quantiles, strict=True)),
            "shard": "all",
            "model": "lightgbm",
            "model_version": "v1",
            "issued_at": datetime(2017, 3, 6),
        }
        for number, days_of_series in enumerate(series)
        for horizon, (mean, quantiles) in enumerate(days_of_series, start=1)
    ]
    return pl.DataFrame(rows, schema=TABLES["forecast.demand"].polars_schema)


def stock_of(levels: list[tuple[float, float | None] | None]) -> pl.DataFrame:
    rows = [
        {"as_of_date": ORIGIN, "store_id": "s", "item_id": f"i{number}", "on_hand": level[0], "on_order": level[1]}
        for number, level in enumerate(levels)
        if level is not None
    ]
    return pl.DataFrame(rows, schema=TABLES["clean.inventory"].polars_schema)


def propose(forecast: pl.DataFrame, stock: pl.DataFrame | None, parameters: ReplenishmentSettings) -> pl.DataFrame:
    proposals = propose_orders(
        forecast, stock, None, parameters, issued_at=datetime(2017, 3, 6), stock_is_simulated=False
    )
    return proposals.sort("item_id")


@settings(max_examples=60, deadline=None)
@given(demand, stock_levels, parameters)
def test_orders_are_the_fewest_whole_cases_that_reach_a_finite_level(
    series: list[list[tuple[float, list[float]]]],
    levels: list[tuple[float, float | None] | None],
    parameters: ReplenishmentSettings,
) -> None:
    proposals = TABLES["forecast.inventory_requirements"].validate(
        propose(forecast_of(series), stock_of(levels), parameters)
    )
    assert len(proposals) == len(series)
    for row in proposals.iter_rows(named=True):
        level, order, case = row["order_up_to_level"], row["order_quantity"], row["case_pack"]
        assert all(isfinite(row[name]) for name in ("order_up_to_level", "expected_demand", "safety_stock"))
        if row["on_hand"] is None:
            assert order is None
            continue
        position = row["on_hand"] + (row["on_order"] or 0)
        assert order % case == 0
        assert position + order >= level - 1e-5
        assert order == 0 or position + order - case < level


@settings(max_examples=40, deadline=None)
@given(demand, parameters, st.floats(0.01, 0.999))
def test_a_higher_service_level_never_needs_less_stock(
    series: list[list[tuple[float, list[float]]]], parameters: ReplenishmentSettings, other: float
) -> None:
    forecast = forecast_of(series)
    low, high = sorted((parameters.service_level, other))
    at_low, at_high = (
        propose(forecast, None, parameters.model_copy(update={"service_level": level}))["order_up_to_level"]
        for level in (low, high)
    )
    assert (at_high >= at_low).all()


@settings(max_examples=40, deadline=None)
@given(demand, stock_levels, parameters, st.randoms(use_true_random=False))
def test_neither_row_order_nor_other_series_matter(
    series: list[list[tuple[float, list[float]]]],
    levels: list[tuple[float, float | None] | None],
    parameters: ReplenishmentSettings,
    random: Random,
) -> None:
    forecast, stock = forecast_of(series), stock_of(levels)
    whole = propose(forecast, stock, parameters)
    order = list(range(len(forecast)))
    random.shuffle(order)
    assert_frame_equal(propose(forecast[order], stock, parameters), whole)
    one = propose(forecast.filter(pl.col("item_id") == "i0"), stock, parameters)
    assert_frame_equal(one, whole.filter(pl.col("item_id") == "i0"), rel_tol=1e-9)
