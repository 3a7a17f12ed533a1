"""Quantiles never cross, are never negative, rise with the mean and survive being written down."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import poisson

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.forecasting.quantiles import (
    FEWEST_ERRORS,
    Deviation,
    NodeSpread,
    QuantileCalibrator,
    assumed_table,
)
from retail_platform.forecasting.training_set import HorizonBlock

BLOCKS = [HorizonBlock(1, 7), HorizonBlock(8, 28)]
LEVELS = np.array(list(QUANTILES.values()))


def past(rows: int, seed: int, largest: float) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    mean = random.gamma(0.4, largest, rows) * random.integers(0, 2, rows)
    return pl.DataFrame(
        {
            "mean": mean,
            "units": random.poisson(mean * random.gamma(1, 1, rows)).astype(float),
            "horizon": pl.Series(random.integers(1, 29, rows), dtype=pl.Int16),
            "dispersion": random.gamma(2, 1, rows),
        }
    )


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0, 1, 50, FEWEST_ERRORS, 1000, 20_000]),
    st.integers(0, 10_000),
    st.sampled_from([0.05, 1.0, 400.0]),
    st.lists(st.floats(0, 1e9), min_size=1, max_size=50),
)
def test_quantiles_are_ordered_not_negative_and_rise_with_the_mean(
    rows: int, seed: int, largest: float, means: list[float]
) -> None:
    calibrator = QuantileCalibrator.fit(past(rows, seed, largest) if rows else None, BLOCKS)
    for horizon in (1, 20, 40):
        forecast = pl.DataFrame({"mean": sorted(means), "horizon": horizon, "listed": True, "dispersion": None})
        values = calibrator.apply(forecast).select(QUANTILES.keys()).to_numpy()
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        assert (np.diff(values, axis=1) >= 0).all()
        assert (np.diff(values, axis=0) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([0, 100, 2000]), st.integers(0, 10_000))
def test_a_calibrator_is_the_same_after_being_written_and_read(rows: int, seed: int) -> None:
    calibrator = QuantileCalibrator.fit(past(rows, seed, 3.0) if rows else None, BLOCKS)
    assert QuantileCalibrator.from_json(calibrator.to_json()) == calibrator


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_quantiles_cover_what_they_promise_where_the_future_is_like_the_past(seed: int) -> None:
    calibrator = QuantileCalibrator.fit(past(20_000, seed, 8.0), BLOCKS)
    future = calibrator.apply(past(20_000, seed + 1, 8.0).with_columns(listed=True))
    for name, level in QUANTILES.items():
        not_above = (future["units"] <= future[name]).mean()
        below = (future["units"] < future[name]).mean()
        assert below - 0.015 <= level <= not_above + 0.015, name


def test_upper_quantiles_of_slow_sellers_hold_nearly_as_often_as_they_say() -> None:
    random = np.random.default_rng(3)

    def days(rows: int) -> pl.DataFrame:
        mean = random.uniform(0.1, 1.0, rows)
        units = random.poisson(mean).astype(float)
        return pl.DataFrame({"mean": mean, "units": units, "horizon": 1, "dispersion": 1.0, "listed": True})

    applied = QuantileCalibrator.fit(days(40_000), BLOCKS).apply(days(40_000))
    for name, level in (("q90", 0.9), ("q95", 0.95)):
        smallest_that_suffices = poisson.ppf(level, applied["mean"].to_numpy())
        held = applied.select((pl.col("units") <= pl.col(name)).mean()).item()
        held_then = (applied["units"].to_numpy() <= smallest_that_suffices).mean()
        assert level - 0.02 < held < level + 0.6 * (held_then - level)


def test_a_bias_of_the_mean_is_repaired_in_the_quantiles() -> None:
    random = np.random.default_rng(1)
    mean = random.gamma(2, 5, 5000)
    errors = pl.DataFrame(
        {"mean": mean, "units": random.poisson(2 * mean).astype(float), "horizon": 1, "dispersion": 1.0}
    )
    applied = QuantileCalibrator.fit(errors, BLOCKS).apply(
        pl.DataFrame({"mean": [10.0], "horizon": [1], "listed": [True], "dispersion": [1.0]})
    )
    assert 18 < applied["q50"].item() < 22


def test_days_that_are_not_listed_have_no_demand_and_a_mean_of_zero_still_has_a_spread() -> None:
    random = np.random.default_rng(1)
    errors = pl.DataFrame(
        {"mean": 0.0, "units": random.poisson(0.5, 1000).astype(float), "horizon": 1, "dispersion": 1.0}
    )
    forecast = pl.DataFrame({"mean": [0.0, 0.0], "horizon": [1, 1], "listed": [True, False], "dispersion": [1.0, None]})
    applied = QuantileCalibrator.fit(errors, BLOCKS).apply(forecast)
    assert applied["q95"].to_list() == pytest.approx([2.2, 0.0], abs=0.1)


def test_a_past_of_next_to_no_sales_says_little_of_a_series_that_sells() -> None:
    units = np.tile([0.0, 0.0, 0.0, 2.0], 100)
    errors = pl.DataFrame({"mean": 0.0, "units": units, "horizon": 1, "dispersion": 1.0})
    forecast = pl.DataFrame({"mean": [0.0, 1.0, 100.0], "horizon": 1, "listed": True, "dispersion": 1.0})
    applied = QuantileCalibrator.fit(errors, BLOCKS).apply(forecast)
    assert (applied["q995"] <= 2 + 8 * applied["mean"]).all()
    assert (applied["q95"] >= applied["mean"]).all()


def test_a_bin_that_spans_from_nothing_to_much_does_not_blow_up() -> None:
    mean, units = np.tile([0.0, 4.0, 5.0, 6.0], 60), np.tile([1.0, 4.0, 6.0, 5.0], 60)
    errors = pl.DataFrame({"mean": mean, "units": units, "horizon": 1, "dispersion": 1.0})
    forecast = pl.DataFrame({"mean": [5.0], "horizon": 1, "listed": True, "dispersion": 1.0})
    applied = QuantileCalibrator.fit(errors, BLOCKS).apply(forecast)
    assert applied["q995"].item() < 20


def test_a_block_with_few_errors_borrows_those_of_the_others_and_says_so() -> None:
    near = past(500, 1, 3.0).with_columns(horizon=pl.lit(3, pl.Int16))
    assert QuantileCalibrator.fit(near, BLOCKS).errors == ((500,), (500,))
    assert QuantileCalibrator.fit(near.head(FEWEST_ERRORS - 1), BLOCKS).errors == ((0,), (0,))


def test_the_assumed_spread_is_that_of_a_negative_binomial() -> None:
    random = np.random.default_rng(3)
    for mean in (0.5, 4.0, 60.0):
        draws = random.negative_binomial(2, 2 / (2 + mean), 400_000)
        low, high = (
            np.quantile(draws, np.clip(LEVELS + step, 0, 1), method="inverted_cdf") for step in (-0.004, 0.004)
        )
        found = assumed_table().at(np.array([mean]))[0]
        assert (found >= low * 0.95 - 0.5).all()
        assert (found <= high * 1.05 + 0.5).all()


def test_a_series_that_strays_more_gets_wider_quantiles_at_the_same_mean() -> None:
    random = np.random.default_rng(4)
    rows, wild = 40_000, np.arange(40_000) % 2 == 0
    mean = random.gamma(3, 2, rows)
    units = random.poisson(np.where(wild, mean * random.gamma(1, 1, rows), mean)).astype(float)
    errors = pl.DataFrame({"mean": mean, "units": units, "horizon": 3, "dispersion": np.where(wild, 5.0, 1.0)})
    calibrator = QuantileCalibrator.fit(errors, BLOCKS[:1])
    applied = calibrator.apply(
        pl.DataFrame({"mean": [6.0, 6.0], "horizon": [1, 1], "listed": [True, True], "dispersion": [1.0, 5.0]})
    )
    steady, straying = applied.select("q05", "q95").iter_rows()
    assert straying[0] < steady[0]
    assert straying[1] > steady[1] + 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4, 150]), st.floats(0.05, 0.6))
def test_the_quantiles_of_nodes_are_ordered_cover_what_they_promise_and_survive_being_written(
    seed: int, nodes: int, deviation: float
) -> None:
    random = np.random.default_rng(seed)
    # Of 2,000, chance alone takes a coverage to its bound where the widest errors are cut at nothing sold.
    rows = nodes * (8_000 // nodes)
    mean = random.gamma(4, 50, rows)
    frame = pl.DataFrame(
        {
            "level": "store",
            "node": np.resize([f"S{number}" for number in range(nodes)], rows),
            "horizon": pl.Series(random.integers(1, 29, rows), dtype=pl.Int16),
            "mean": mean,
            "units": mean * np.maximum(1 + deviation * random.standard_normal(rows), 0),
        }
    )
    spread = NodeSpread.fit(frame, BLOCKS)
    assert NodeSpread.from_json(spread.to_json()) == spread
    applied = spread.apply(frame)
    values = applied.select(QUANTILES.keys()).to_numpy()
    assert (values >= 0).all()
    assert (np.diff(values, axis=1) >= 0).all()
    assert 0.85 < applied.select(pl.col("units").is_between("q05", "q95").mean()).item() < 0.96


def test_a_level_of_which_nothing_is_known_has_a_spread_all_the_same() -> None:
    forecast = pl.DataFrame({"level": ["total"], "node": ["total"], "horizon": [3], "mean": [100.0]})
    applied = NodeSpread.fit(None, BLOCKS).apply(forecast)
    assert applied["q50"].item() == 100
    assert 60 < applied["q05"].item() < 80


def test_a_larger_node_has_smaller_relative_errors() -> None:
    random = np.random.default_rng(5)
    mean = np.repeat([20.0, 200.0, 2000.0], 400)
    units = mean * (1 + random.normal(0, 1, mean.size) * np.sqrt(0.05**2 + 2 / mean))
    found = Deviation.fit(mean, units)
    expected = np.sqrt(0.05**2 + 2 / np.array([20.0, 200.0, 2000.0]))
    assert found.at(np.array([20.0, 200.0, 2000.0])) == pytest.approx(expected, rel=0.15)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.floats(0, 1e6)), max_size=30))
def test_deviations_are_finite_and_never_rise_with_the_mean(errors: list[tuple[float, float]]) -> None:
    mean, units = np.array(errors).reshape(-1, 2).T
    deviations = Deviation.fit(mean, units).at(np.geomspace(0.01, 1e6, 20))
    assert np.isfinite(deviations).all()
    assert (deviations >= 0).all()
    assert (np.diff(deviations) <= 0).all()
