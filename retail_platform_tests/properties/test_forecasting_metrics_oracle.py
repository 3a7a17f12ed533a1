"""The measures equal an independent NumPy implementation on any forecast."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.forecasting.metrics import METRICS


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10_000))
def test_measures_equal_the_numpy_oracle(rows: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    series = random.integers(0, 4, rows)
    units, mean = random.poisson(2, rows).astype(float), random.gamma(1, 2, rows)
    scale = random.gamma(2, 1, 4) + 0.1
    quantiles = np.sort(random.gamma(1, 2, (rows, len(QUANTILES))), axis=1)
    frame = pl.DataFrame(
        {
            "store_id": ["S"] * rows,
            "item_id": [f"I{number}" for number in series],
            "units": units,
            "mean": mean,
            "scale_absolute": scale[series],
            "scale_squared": scale[series] ** 2,
            **{name: quantiles[:, column] for column, name in enumerate(QUANTILES)},
        }
    )
    error, levels = mean - units, np.array(list(QUANTILES.values()))
    missed = units[:, None] - quantiles
    inside = [name in ("q05", "q95") for name in QUANTILES]
    low, high = quantiles[:, inside].T
    present = np.unique(series)
    expected = {
        "mae": np.abs(error).mean(),
        "rmse": np.sqrt((error**2).mean()),
        "mase": np.mean([np.abs(error[series == s]).mean() / scale[s] for s in present]),
        "rmsse": np.mean([np.sqrt((error[series == s] ** 2).mean()) / scale[s] for s in present]),
        "pinball": np.where(missed >= 0, levels * missed, (levels - 1) * missed).mean(),
        "coverage_90": ((low <= units) & (units <= high)).mean(),
        "not_above_q95": (units <= high).mean(),
    }
    if units.sum() > 0:
        expected |= {"wape": np.abs(error).sum() / units.sum(), "bias": error.sum() / units.sum()}
    for name, value in expected.items():
        assert np.isclose(METRICS[name](frame, []).item(), value), name
