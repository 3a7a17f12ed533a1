"""Quantiles over the last days of each series, faster than Polars' own.

Here: what Polars' `rolling_quantile` within each series tells, at half the processor time for two quantiles of a month
(`benchmarks/features.py` shows what that means for a history). Polars keeps one window per quantile in order as it
moves on by a day; numpy sorts every window anew, with the vector instructions of the processor, and all quantiles are
read from it. Not here: statistics that need no order, which are Polars expressions in `history.py`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.features.dense import Positions

_ROWS_AT_ONCE = 1 << 14
"""Windows sorted in one piece: two megabytes for a month, which stay in the cache of one core."""


def rolling_quantiles(values: pl.Series, ages: Positions, days: int, shares: Sequence[float]) -> list[pl.Series]:
    """For each share a Float32 series: the quantile of the known `values` of the row's series over the last `days`
    rows up to and including it, null where none is known.

    `values` has every series as one run of rows, `ages` the rows since it began. Between two values the quantile is
    interpolated linearly, as by `rolling_quantile(share, "linear", window_size=days, min_samples=1)`.
    """
    if values.is_empty():
        return [pl.Series(dtype=pl.Float32) for _ in shares]
    unknown = np.full(days - 1, np.nan, np.float32)
    known = values.cast(pl.Float32).fill_null(float("nan")).to_numpy()
    windows = np.lib.stride_tricks.sliding_window_view(np.concatenate([unknown, known]), days)
    results = np.empty((len(shares), known.size), np.float32)

    # Adding up once takes a tenth of the time of counting in each window.
    seen = np.cumsum(values.is_not_null().to_numpy(), dtype=np.int32)
    earlier = np.concatenate([np.zeros(1, np.int32), seen])

    def compute(start: int) -> None:
        piece = slice(start, min(start + _ROWS_AT_ONCE, known.size))
        rows = np.arange(piece.start, piece.stop)
        counts = seen[piece] - earlier[rows - np.minimum(ages[piece], days - 1)]
        results[:, piece] = _quantiles(windows[piece].copy(), ages[piece], counts, shares)

    with ThreadPoolExecutor(pl.thread_pool_size()) as threads:
        list(threads.map(compute, range(0, known.size, _ROWS_AT_ONCE)))
    return [pl.Series(result).fill_nan(None) for result in results]


def _quantiles(
    windows: npt.NDArray[np.float32], ages: Positions, counts: npt.NDArray[np.int32], shares: Sequence[float]
) -> npt.NDArray[np.float32]:
    """Quantiles of windows with so many known days, which are put in order: one row per share. What lies before a
    series' first day is left out.
    """
    rows, days = windows.shape
    young = np.flatnonzero(ages < days - 1)
    before = np.arange(days) < (days - 1 - ages[young])[:, None]
    windows[young] = np.where(before, np.float32("nan"), windows[young])
    windows.sort(axis=1)  # unknown days come last
    ordered, first = windows.ravel(), np.arange(rows) * days
    results = np.empty((len(shares), rows), np.float32)
    for share, result in zip(shares, results, strict=True):
        place = share * np.maximum(np.arange(days + 1) - 1, 0)
        below, above = np.floor(place).astype(np.int64), np.ceil(place).astype(np.int64)
        low, high = ordered.take(first + below.take(counts)), ordered.take(first + above.take(counts))
        result[:] = low + (high - low) * (place - below).astype(np.float32).take(counts)
    return results
