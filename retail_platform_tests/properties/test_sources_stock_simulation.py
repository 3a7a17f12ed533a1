"""Laws of the simulated replenishment: stock balances, nothing is sold that is not there, no look ahead."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retail_platform.sources.stock_simulation import Units, simulate_stock


@st.composite
def shops(draw: st.DrawFn) -> dict[str, Any]:
    series, days = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    counts = st.integers(0, 40)
    return {
        "demand": draw(hnp.arrays(np.float64, (series, days), elements=counts.map(float))),
        "lead_time_days": draw(hnp.arrays(np.int64, series, elements=st.integers(0, 9))),
        "review_period_days": draw(st.integers(1, 7)),
        "case_pack": draw(hnp.arrays(np.int64, series, elements=st.integers(1, 12))),
        "service_level": draw(st.sampled_from([0.5, 0.9, 0.99])),
        "expected_demand": draw(st.none() | hnp.arrays(np.float64, series, elements=counts.map(float))),
        "listed": draw(st.none() | hnp.arrays(np.bool_, (series, days))),
    }


@given(shop=shops(), censor=st.booleans())
def test_stock_balances_and_is_never_negative(shop: dict[str, Any], *, censor: bool) -> None:
    stock = simulate_stock(**shop, censor=censor)
    before = np.column_stack([stock.opening_stock, stock.on_hand[:, :-1]])
    np.testing.assert_array_equal(stock.on_hand, before + stock.arrivals + stock.emergency_deliveries - stock.sales)
    assert (stock.on_hand >= 0).all()
    assert (stock.on_order >= 0).all()


@given(shops())
def test_a_censored_shop_sells_the_smaller_of_demand_and_stock(shop: dict[str, Any]) -> None:
    stock = simulate_stock(**shop, censor=True)
    before = np.column_stack([stock.opening_stock, stock.on_hand[:, :-1]])
    np.testing.assert_array_equal(stock.sales, np.minimum(shop["demand"], before + stock.arrivals))
    assert not stock.emergency_deliveries.any()


@given(shops())
def test_real_sales_stay_as_they_are_and_no_shelf_is_emptied_by_an_emergency(shop: dict[str, Any]) -> None:
    stock = simulate_stock(**shop, censor=False)
    np.testing.assert_array_equal(stock.sales, shop["demand"])
    assert (stock.on_hand[stock.emergency_deliveries > 0] > 0).all()


@given(shop=shops(), censor=st.booleans())
def test_deliveries_are_whole_cases(shop: dict[str, Any], *, censor: bool) -> None:
    stock = simulate_stock(**shop, censor=censor)
    for delivered in (stock.opening_stock[:, None], stock.arrivals, stock.emergency_deliveries):
        assert not (delivered % shop["case_pack"][:, None]).any()


@given(shop=shops(), censor=st.booleans(), data=st.data())
def test_the_past_does_not_depend_on_the_future(shop: dict[str, Any], *, censor: bool, data: st.DataObject) -> None:
    known = data.draw(st.integers(0, shop["demand"].shape[1]))
    future = shop["demand"][:, known:] + data.draw(st.integers(1, 100))
    other = shop | {"demand": np.column_stack([shop["demand"][:, :known], future])}
    first, second = simulate_stock(**shop, censor=censor), simulate_stock(**other, censor=censor)
    for name in ("on_hand", "on_order", "sales", "arrivals", "emergency_deliveries"):
        np.testing.assert_array_equal(getattr(first, name)[:, :known], getattr(second, name)[:, :known])


@given(shops())
def test_nothing_arrives_where_the_item_is_not_listed(shop: dict[str, Any]) -> None:
    stock = simulate_stock(**shop, censor=True)
    if shop["listed"] is not None:
        assert not stock.arrivals[~shop["listed"]].any()


SELLS_THE_MEAN_AND_RUNS_EMPTY = {
    "demand": np.array([[0.0, 29.0, 29.0, 0.0]]),
    "lead_time_days": np.array([0]),
    "review_period_days": 1,
    "case_pack": np.array([1]),
    "service_level": 0.9,
    "expected_demand": None,
    "listed": None,
}


@example(shop=SELLS_THE_MEAN_AND_RUNS_EMPTY, censor=False)
@given(shop=shops(), censor=st.booleans())
def test_the_fast_rule_is_the_rule_written_out_day_by_day(shop: dict[str, Any], *, censor: bool) -> None:
    stock = simulate_stock(**shop, censor=censor)
    for row in range(shop["demand"].shape[0]):
        on_hand, on_order = written_out(
            list(shop["demand"][row]),
            lead_time=int(shop["lead_time_days"][row]),
            review=shop["review_period_days"],
            case=int(shop["case_pack"][row]),
            z=NormalDist().inv_cdf(shop["service_level"]),
            expected=None if shop["expected_demand"] is None else float(shop["expected_demand"][row]),
            listed=None if shop["listed"] is None else list(shop["listed"][row]),
            censor=censor,
        )
        np.testing.assert_array_equal(stock.on_hand[row], on_hand)
        np.testing.assert_array_equal(stock.on_order[row], on_order)


def written_out(
    demand: list[float],
    *,
    lead_time: int,
    review: int,
    case: int,
    z: float,
    expected: float | None,
    listed: list[bool] | None,
    censor: bool,
) -> tuple[list[float], list[float]]:
    """One series, one day after the other: the oracle of the vectorised rule."""
    in_range = listed or [True] * len(demand)
    prior = [] if expected is None else [(1.0, expected, expected)]
    known: list[tuple[float, float, float]] = prior  # weight, units, variance of the units themselves

    def mean() -> float:
        return sum(w * x for w, x, _ in known) / sum(w for w, _, _ in known) if known else 0.0

    def wanted(position: float) -> float:
        variance = sum(w * ((x - mean()) ** 2 + v) for w, x, v in known) / sum(w for w, _, _ in known) if known else 0.0
        missing = mean() * (review + lead_time) + z * math.sqrt(variance * (review + lead_time)) - position
        return math.ceil(max(missing / case - 1e-9, 0.0)) * case

    stock = wanted(0.0) if in_range[0] else 0.0
    deliveries: dict[int, float] = {}
    on_hand, on_order = [], []
    for day, asked in enumerate(demand):
        stock += deliveries.pop(day, 0.0)
        sold = min(asked, stock) if censor else asked
        if sold > stock:
            while stock <= sold:
                stock += case
        stock -= sold
        if in_range[day] and (stock > 0 or sold > mean() + 1e-9):
            known = [(w * (1 - 1 / 28), x, v) for w, x, v in known] + [(1 / 28, sold, 0.0)]
        if (day + 1) % review == 0 and in_range[min(day + lead_time + 1, len(demand) - 1)]:
            deliveries[day + lead_time + 1] = wanted(stock + sum(deliveries.values()))
        on_hand.append(stock)
        on_order.append(sum(deliveries.values()))
    return on_hand, on_order


def test_steady_demand_is_served_once_it_is_known() -> None:
    demand: Units = np.full((1, 200), 5.0)
    stock = simulate_stock(demand, lead_time_days=3, review_period_days=2, case_pack=6, censor=True)
    assert not stock.sales[0].any(), "a shop that expects nothing and sells nothing never orders"
    expecting = simulate_stock(
        demand, lead_time_days=3, review_period_days=2, case_pack=6, expected_demand=np.array([5.0]), censor=True
    )
    np.testing.assert_array_equal(expecting.sales, demand)


def test_every_unusable_argument_is_named() -> None:
    with pytest.raises(ValueError, match="demand") as refused:
        simulate_stock(
            np.array([[1.0, -1.0]]),
            lead_time_days=-1,
            review_period_days=0,
            case_pack=0,
            service_level=1.0,
            censor=True,
        )
    for name in ("lead_time_days", "review_period_days", "case_pack", "service_level"):
        assert name in str(refused.value)
