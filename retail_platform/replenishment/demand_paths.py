"""Demand over several days from forecasts of single days.

Here: sample paths drawn from the daily quantile forecasts, and the quantile of their sum. The sum of daily
quantiles is not the quantile of the sum (it would hold far too much stock), so the days are drawn together. Not
here: lead times, stock and orders (`orders.py`).

One day's demand. Its quantile function passes through the published quantiles. Below the lowest it is flat, above
the highest an exponential tail goes on as steeply as the two highest quantiles rise. Between two neighbours it
stays flat for a share of the way and then rises in a straight line, or rises and then stays flat: one such share
per day, chosen so that the day's mean is the published mean. A plain straight line would give a slow mover, whose
quantiles read 0, 0, 1, 1, about a third too much demand. Where no such function has the published mean the
quantiles are kept and the mean is missed.

The days together. A Gaussian copula with first-order autocorrelation, and each day's probabilities stratified over
the paths, so that each day by itself is represented without sampling error. All series share the same paths:
the result for one series depends on no other.
"""

import numpy as np
from numpy.typing import NDArray

from retail_platform.contracts.forecast import QUANTILES

Floats = NDArray[np.float64]

PROBABILITIES: Floats = np.array(list(QUANTILES.values()))
SERIES_PER_CHUNK = 2_000


def correlated_probabilities(days: int, paths: int, autocorrelation: float, seed: int) -> Floats:
    """Probabilities (days x paths) at which each path reads each day's quantile function.

    Every day holds each of (0.5, 1.5, ...) / paths once; the normal scores behind successive days have
    correlation `autocorrelation`. The first days are the same however many days are asked for.
    """
    scores = np.random.default_rng(seed).standard_normal((days, paths))
    for day in range(1, days):
        scores[day] = autocorrelation * scores[day - 1] + np.sqrt(1 - autocorrelation**2) * scores[day]
    ranks = scores.argsort(axis=1).argsort(axis=1)
    return np.asarray((ranks + 0.5) / paths)


def total_demand_quantile(means: Floats, quantiles: Floats, probabilities: Floats, level: float) -> Floats:
    """Quantile `level` of the demand summed over the days, in units, one value per series.

    `means` is series x days, `quantiles` series x days x the published quantiles in ascending order, and
    `probabilities` days x paths (`correlated_probabilities`). The smallest sampled total that at least the share
    `level` of the paths does not exceed.
    """
    paths = probabilities.shape[1]
    position = min(max(int(np.ceil(level * paths - 1e-9)) - 1, 0), paths - 1)
    result = np.empty(len(means))
    for start in range(0, len(means), SERIES_PER_CHUNK):
        chunk = slice(start, start + SERIES_PER_CHUNK)
        totals = np.zeros((len(means[chunk]), paths))
        for day, at in enumerate(probabilities):
            totals += daily_demand(means[chunk, day], quantiles[chunk, day], at)
        result[chunk] = np.partition(totals, position, axis=1)[:, position]
    return result


def daily_demand(means: Floats, quantiles: Floats, probabilities: Floats) -> Floats:
    """One day's demand (series x probabilities, in units) read from its quantile function at the probabilities.

    `means` has one value per series and `quantiles` one row per series.
    """
    steps = np.diff(quantiles, axis=1)
    highest = quantiles[:, -1]
    beyond = 1 - PROBABILITIES[-1]
    tail = steps[:, -1] / np.log((1 - PROBABILITIES[-2]) / beyond)
    # All quantiles are 0 for the slowest movers: what they sell lies beyond the highest, at most a unit at a time.
    tail = np.where(highest > 0, tail, np.minimum(means / beyond, 1.0))

    widths = np.diff(PROBABILITIES)
    outside = PROBABILITIES[0] * quantiles[:, 0] + beyond * (highest + tail)
    least = outside + quantiles[:, :-1] @ widths
    room = steps @ widths
    share = np.divide(means - least, room, out=np.full(len(means), 0.5), where=room > 0).clip(1e-6, 1 - 1e-6)
    flat_first = np.maximum(1 - 2 * share, 0)[:, None]
    rising = np.minimum(2 * share, 2 * (1 - share))[:, None]

    interval = np.searchsorted(PROBABILITIES, probabilities, side="right") - 1
    inside = interval.clip(0, len(widths) - 1)
    way = ((probabilities - PROBABILITIES[inside]) / widths[inside]).clip(0, 1)
    demand: Floats = quantiles[:, inside] + steps[:, inside] * ((way - flat_first) / rising).clip(0, 1)
    above = np.log(beyond / (1 - np.maximum(probabilities, PROBABILITIES[-1])))
    demand += tail[:, None] * above
    return demand
