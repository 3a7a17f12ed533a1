"""Measures of accuracy against values computed by hand."""

from datetime import timedelta

import polars as pl
import pytest

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.forecasting.metrics import (
    METRICS,
    all_metrics,
    bias,
    coverage_90,
    mae,
    mase,
    not_above_q95,
    pinball,
    rmse,
    rmsse,
    series_scales,
    wape,
)
from retail_platform_tests.panels import START, demand_panel

SCORED = pl.DataFrame(
    {
        "store_id": ["S1", "S1", "S1", "S1", "S1"],
        "item_id": ["A", "A", "B", "B", "B"],
        "model": ["m", "m", "m", "m", "m"],
        "units": [2.0, 4.0, 0.0, 10.0, None],
        "mean": [3.0, 1.0, 2.0, 10.0, 99.0],
        "scale_absolute": [2.0, 2.0, None, None, None],
        "scale_squared": [5.0, 5.0, 4.0, 4.0, 4.0],
        **{name: [4.0, 4.0, 4.0, 4.0, 4.0] for name in QUANTILES},
    }
)


def value(frame: pl.DataFrame) -> float:
    assert frame.shape == (1, 1)
    return float(frame.item())


def test_measures_by_hand() -> None:
    assert value(wape(SCORED)) == pytest.approx((1 + 3 + 2 + 0) / 16)
    assert value(bias(SCORED)) == pytest.approx((1 - 3 + 2 + 0) / 16)
    assert value(mae(SCORED)) == pytest.approx(6 / 4)
    assert value(rmse(SCORED)) == pytest.approx((14 / 4) ** 0.5)
    assert value(mase(SCORED)) == pytest.approx((1 / 2 + 3 / 2) / 2)
    assert value(rmsse(SCORED)) == pytest.approx((((1 + 9) / 2 / 5) ** 0.5 + ((4 + 0) / 2 / 4) ** 0.5) / 2)
    assert value(not_above_q95(SCORED)) == pytest.approx(3 / 4)
    assert value(coverage_90(SCORED)) == pytest.approx(1 / 4)
    losses = [
        level * max(u - 4, 0) + (1 - level) * max(4 - u, 0) for level in QUANTILES.values() for u in (2, 4, 0, 10)
    ]
    assert value(pinball(SCORED)) == pytest.approx(sum(losses) / len(losses))


def test_groups_are_measured_apart() -> None:
    assert wape(SCORED, ["item_id"]).rows() == [("A", pytest.approx(4 / 6)), ("B", pytest.approx(2 / 10))]


def test_nothing_sold_leaves_a_relative_measure_undefined() -> None:
    nothing = SCORED.with_columns(units=pl.lit(0.0))
    assert wape(nothing).item() is None
    assert bias(nothing).item() is None


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_forecast_has_no_error_and_every_measure_has_one_value_per_group(name: str) -> None:
    perfect = SCORED.with_columns(pl.col("units").alias(column) for column in ("mean", *QUANTILES))
    table = METRICS[name](perfect, ["model"])
    assert table.columns == ["model", "value"]
    assert table["value"].to_list() == [1.0 if name.startswith(("coverage", "not_above")) else 0.0]


def test_all_metrics_is_long_and_complete() -> None:
    table = all_metrics(SCORED, ["model"])
    assert table.columns == ["model", "metric", "value"]
    assert table["metric"].to_list() == list(METRICS)


def test_scales_come_from_available_days_up_to_the_cutoff() -> None:
    units = [1.0, 3.0, 0.0, 2.0, 2.0, 2.0, 2.0, 5.0, 100.0]
    in_stock = [day != 2 for day in range(9)]
    scales = series_scales(demand_panel({("S1", "A"): units}, ahead=0, in_stock=in_stock), START + timedelta(days=7))
    # Day 2 is missing, so neither the change to it nor the one from it counts.
    assert scales["scale_squared"].item() == pytest.approx((4 + 0 + 0 + 0 + 9) / 5)
    assert scales["scale_absolute"].item() == pytest.approx(4.0)


def test_a_series_that_never_changed_or_is_too_short_has_no_scale() -> None:
    scales = series_scales(demand_panel({("S1", "A"): [2.0] * 20, ("S1", "B"): [2.0]}), START + timedelta(days=30))
    assert scales["scale_squared"].to_list() == [None, None]
    assert scales["scale_absolute"].to_list() == [None, None]
