"""The demand of several days must follow from the forecasts of single days."""

from math import ceil, log

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from retail_platform.replenishment.demand_paths import (
    PROBABILITIES,
    SERIES_PER_CHUNK,
    Floats,
    correlated_probabilities,
    daily_demand,
    total_demand_quantile,
)

PATHS = 500


def poisson_forecast(rates: Floats, days: int) -> tuple[Floats, Floats]:
    """Exact forecast of Poisson demand: means (series x days) and quantiles (series x days x published)."""
    quantiles = stats.poisson.ppf(PROBABILITIES, rates[:, None])
    return np.repeat(rates[:, None], days, axis=1), np.repeat(quantiles[:, None], days, axis=1)


def plain_daily_demand(mean: float, quantiles: Floats, probability: float) -> float:
    """The documented quantile function of one series and day, read at one probability."""
    p, q = PROBABILITIES, quantiles
    beyond = 1 - p[-1]
    tail = (q[-1] - q[-2]) / log((1 - p[-2]) / beyond) if q[-1] > 0 else min(mean / beyond, 1.0)
    if probability <= p[0]:
        return float(q[0])
    if probability >= p[-1]:
        return float(q[-1] + tail * log(beyond / (1 - probability)))
    fixed = p[0] * q[0] + beyond * (q[-1] + tail)
    least = fixed + sum((p[k + 1] - p[k]) * q[k] for k in range(len(p) - 1))
    most = fixed + sum((p[k + 1] - p[k]) * q[k + 1] for k in range(len(p) - 1))
    share = min(max((mean - least) / (most - least), 1e-6), 1 - 1e-6) if most > least else 0.5
    k = next(k for k in range(len(p) - 1) if p[k] <= probability < p[k + 1])
    way = (probability - p[k]) / (p[k + 1] - p[k])
    risen = max(0.0, (way - (1 - 2 * share)) / (2 * share)) if share < 0.5 else min(1.0, way / (2 * (1 - share)))
    return float(q[k] + (q[k + 1] - q[k]) * risen)


def test_daily_demand_is_the_documented_quantile_function() -> None:
    rates = np.array([0.001, 0.05, 0.3, 0.7, 2.0, 9.0, 300.0])
    quantiles = stats.poisson.ppf(PROBABILITIES, rates[:, None])
    at = np.linspace(0.0007, 0.9993, 411)
    expected = [[plain_daily_demand(m, q, p) for p in at] for m, q in zip(rates, quantiles, strict=True)]
    np.testing.assert_allclose(daily_demand(rates, quantiles, at), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3, 0.7, 1.5, 4.0, 30.0, 1000.0])
def test_the_drawn_demand_has_the_published_mean(rate: float) -> None:
    means, quantiles = poisson_forecast(np.array([rate]), days=1)
    drawn = daily_demand(means[:, 0], quantiles[:, 0], (np.arange(20_000) + 0.5) / 20_000)
    assert drawn.mean() == pytest.approx(rate, rel=0.01)


def test_the_published_quantiles_are_kept() -> None:
    means, quantiles = poisson_forecast(np.array([0.4, 3.0, 50.0]), days=1)
    np.testing.assert_allclose(daily_demand(means[:, 0], quantiles[:, 0], PROBABILITIES), quantiles[:, 0])


@pytest.mark.parametrize("mean", [0.0, 1e6])
def test_quantiles_win_over_a_mean_that_contradicts_them(mean: float) -> None:
    quantiles = np.arange(1.0, 1.0 + len(PROBABILITIES))[None]
    at = PROBABILITIES[3:8]
    np.testing.assert_allclose(daily_demand(np.array([mean]), quantiles, at), quantiles[:, 3:8], rtol=1e-3)


def test_each_day_holds_every_probability_once() -> None:
    drawn = correlated_probabilities(9, PATHS, 0.4, seed=3)
    np.testing.assert_allclose(np.sort(drawn, axis=1), np.tile((np.arange(PATHS) + 0.5) / PATHS, (9, 1)))


def test_successive_days_have_the_autocorrelation_asked_for() -> None:
    scores = stats.norm.ppf(correlated_probabilities(30, 4000, 0.6, seed=3))
    for apart, expected in ((1, 0.6), (2, 0.36), (10, 0.006)):
        found = np.mean([np.corrcoef(scores[d], scores[d + apart])[0, 1] for d in range(30 - apart)])
        assert found == pytest.approx(expected, abs=0.02)


def test_a_longer_interval_begins_with_the_paths_of_a_shorter_one() -> None:
    short, long = (correlated_probabilities(days, PATHS, 0.2, seed=3) for days in (4, 11))
    np.testing.assert_array_equal(short, long[:4])


@pytest.mark.parametrize("service_level", [0.5, 0.8, 0.9, 0.95, 0.975])
@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0, 4.0, 20.0, 150.0])
def test_one_day_gives_the_newsvendor_stock_of_poisson_demand(rate: float, service_level: float) -> None:
    means, quantiles = poisson_forecast(np.array([rate]), days=1)
    level = total_demand_quantile(means, quantiles, correlated_probabilities(1, 2000, 0.2, seed=3), service_level)[0]
    exact = stats.poisson.ppf(service_level, rate)
    if service_level in PROBABILITIES:
        assert ceil(level - 1e-6) == exact
    else:
        assert abs(level - exact) <= max(1.0, 0.01 * exact)


@pytest.mark.parametrize("service_level", [0.8, 0.9, 0.95, 0.98])
def test_simulated_demand_is_covered_at_the_service_level(service_level: float) -> None:
    rates, days = np.array([2.0, 5.0, 12.0, 40.0]), 5
    levels = total_demand_quantile(
        *poisson_forecast(rates, days), correlated_probabilities(days, 4000, 0.0, seed=3), service_level
    )
    demand = np.random.default_rng(8).poisson(rates * days, size=(100_000, len(rates)))
    covered = (demand <= np.ceil(levels - 1e-6)).mean(axis=0)
    assert np.all(covered >= service_level - 0.015), covered
    # A whole unit more than the level covers the share of one unit more.
    one_unit = stats.poisson.pmf(np.floor(levels), rates * days)
    assert np.all(covered <= service_level + 0.02 + one_unit), covered


def test_autocorrelated_demand_is_covered_only_if_the_correlation_is_known() -> None:
    rates, days, service_level = np.array([20.0]), 10, 0.95
    means, quantiles = poisson_forecast(rates, days)
    truth = correlated_probabilities(days, 50_000, 0.7, seed=99)
    demand = stats.poisson.ppf(truth, rates[0]).sum(axis=0)

    def coverage(autocorrelation: float) -> float:
        at = correlated_probabilities(days, PATHS, autocorrelation, seed=3)
        return float((demand <= np.ceil(total_demand_quantile(means, quantiles, at, service_level))).mean())

    assert coverage(0.7) == pytest.approx(service_level, abs=0.015)
    assert coverage(0.0) < 0.88


def test_the_sum_of_daily_quantiles_would_hold_too_much() -> None:
    means, quantiles = poisson_forecast(np.array([6.0]), days=10)
    level = total_demand_quantile(means, quantiles, correlated_probabilities(10, PATHS, 0.2, seed=3), 0.95)[0]
    sum_of_quantiles = quantiles[0, :, list(PROBABILITIES).index(0.95)].sum()
    assert 60 < level < 0.85 * sum_of_quantiles


def test_chunks_do_not_show() -> None:
    rates = np.random.default_rng(5).gamma(0.5, 4, SERIES_PER_CHUNK + 3)
    means, quantiles = poisson_forecast(rates, days=2)
    at = correlated_probabilities(2, 60, 0.2, seed=3)
    together = total_demand_quantile(means, quantiles, at, 0.9)
    alone = [total_demand_quantile(means[[i]], quantiles[[i]], at, 0.9)[0] for i in (0, 1999, 2000, 2002)]
    np.testing.assert_allclose(together[[0, 1999, 2000, 2002]], alone, rtol=1e-12)
