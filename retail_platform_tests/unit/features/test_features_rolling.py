"""Means and quantiles over the last days are those that Polars computes; quantiles to the last bit."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_series_equal

from retail_platform.features.rolling import rolling_means, rolling_quantiles


def series_of(lengths: list[int], missing: float) -> pl.DataFrame:
    random = np.random.default_rng(1)
    units = random.poisson(random.lognormal(0, 1, len(lengths)).repeat(lengths)).astype(np.float32)
    return pl.DataFrame(
        {
            "series": np.arange(len(lengths)).repeat(lengths),
            "age": np.concatenate([np.arange(length) for length in lengths]),
            "units": pl.Series(np.where(random.random(units.size) < missing, np.nan, units)).fill_nan(None),
        }
    )


@pytest.mark.parametrize("missing", [0, 0.3, 0.97])
@pytest.mark.parametrize("lengths", [[1], [27, 28, 29, 1, 90], [20_000, 15_000]], ids=["a day", "short", "pieces"])
def test_they_equal_those_of_polars(lengths: list[int], missing: float) -> None:
    frame = series_of(lengths, missing)
    found = rolling_quantiles(frame["units"], frame["age"].to_numpy(), 28, (0.5, 0.9))
    for share, own in zip((0.5, 0.9), found, strict=True):
        quantile = pl.col("units").rolling_quantile(share, "linear", window_size=28, min_samples=1)
        expected = frame.select(quantile.over("series").cast(pl.Float32)).to_series()
        assert own.equals(expected, null_equal=True)


@pytest.mark.parametrize("missing", [0, 0.3, 0.97])
@pytest.mark.parametrize("lengths", [[1], [6, 7, 8, 1, 90, 364, 400], [20_000, 15_000]], ids=["a day", "short", "long"])
def test_means_equal_those_of_polars(lengths: list[int], missing: float) -> None:
    frame = series_of(lengths, missing)
    for step, windows in ((1, (7, 14, 28, 91, 364)), (1, (28,)), (7, (4, 8, 13))):
        step_of_series = ["series", pl.col("age") % step]
        own = rolling_means(frame["units"], frame["age"].to_numpy(), windows, step=step)
        for window, mean in zip(windows, own, strict=True):
            rolling = pl.col("units").cast(pl.Float64).rolling_mean(window, min_samples=1)
            expected = frame.select(rolling.over(step_of_series).cast(pl.Float32)).to_series()
            assert_series_equal(mean, expected, check_names=False, rel_tol=1e-5, abs_tol=1e-6)


def test_no_days_have_no_quantiles() -> None:
    (none,) = rolling_quantiles(pl.Series([], dtype=pl.Float32), np.array([], np.int64), 28, (0.5,))
    assert none.is_empty()
    assert none.dtype == pl.Float32
    assert all(mean.is_empty() for mean in rolling_means(none, np.array([], np.int64), (1, 28)))
