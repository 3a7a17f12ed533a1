"""The spread around a mean forecast, learned from forecast errors that the model did not see in training.

Here: conditional quantiles of units given the predicted mean, per horizon block, for any mean model. Not here: the
mean itself (`forecasting/models.py`), and the quantiles of sums over days, which are not sums of quantiles
(`replenishment/`).

Method: past forecasts are sorted by their predicted mean and cut into bins of about equal count; in each bin the
empirical quantiles of what was sold are taken. Between the bins' centres they are interpolated, below the lowest they
stay as they are there, and above the highest they grow in proportion. Quantiles rise with the mean by construction.
Without enough past errors the spread is that of a negative binomial whose variance is m + m^2 / 2 for a mean m.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.forecasting.training_set import HorizonBlock

Floats = npt.NDArray[np.float64]

FEWEST_ERRORS = 200
"""Past errors below which a block borrows those of all blocks, and below which these give way to the assumption."""
ROWS_PER_BIN = 400
MOST_BINS = 50
LARGEST_QUANTILE = 1e12

_SMALLEST_MEAN = 1e-6
_LEVELS = np.array(list(QUANTILES.values()))


@dataclass(frozen=True)
class QuantileTable:
    """Quantiles of units (rows) at the predicted means `means`, ascending; columns as in QUANTILES."""

    means: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]

    def at(self, mean: Floats) -> Floats:
        """Quantiles at each of the means: means x QUANTILES, rising along both axes, not negative."""
        centres = np.array(self.means)
        inside = np.column_stack([np.interp(mean, centres, column) for column in np.array(self.quantiles).T])
        above = np.maximum(mean / centres[-1], 1.0)[:, None]
        quantiles: Floats = np.clip(inside * above, 0.0, LARGEST_QUANTILE)
        return quantiles


@dataclass(frozen=True)
class QuantileCalibrator:
    """One table per horizon block; `errors` says how many past forecasts each was learned from, 0 if assumed."""

    blocks: tuple[HorizonBlock, ...]
    tables: tuple[QuantileTable, ...]
    errors: tuple[int, ...]

    @classmethod
    def fit(cls, predictions: pl.DataFrame | None, blocks: Sequence[HorizonBlock]) -> "QuantileCalibrator":
        """Learn from past forecasts (columns mean, units, horizon) whose targets lay after their model's cutoff.

        Rows without units are passed over. With fewer than 200 errors in a block all horizons count together, and
        with fewer than 200 in all, or none (None), the assumed spread is taken.
        """
        known = _known(predictions)
        tables, errors = [], []
        for block in blocks:
            own = known.filter(pl.col("horizon").is_between(block.first, block.last))
            used = own if own.height >= FEWEST_ERRORS else known
            enough = used.height >= FEWEST_ERRORS
            tables.append(_empirical(used) if enough else assumed_table())
            errors.append(used.height if enough else 0)
        return cls(tuple(blocks), tuple(tables), tuple(errors))

    def apply(self, forecast: pl.DataFrame) -> pl.DataFrame:
        """Add the columns of QUANTILES to a forecast with mean, horizon and listed.

        Horizons beyond the last block use it. Days on which the item is not listed have no demand at all.
        """
        mean, horizon = forecast["mean"].to_numpy(), forecast["horizon"].to_numpy()
        values = np.zeros((forecast.height, _LEVELS.size))
        for block, table in zip(self.blocks, self.tables, strict=True):
            own = horizon >= block.first
            values[own] = table.at(mean[own])
        values[~forecast["listed"].to_numpy()] = 0.0
        return forecast.with_columns(pl.Series(name, values[:, i]) for i, name in enumerate(QUANTILES))

    def to_json(self) -> str:
        return json.dumps(
            {
                "levels": list(_LEVELS),
                "blocks": [
                    {
                        "first": block.first,
                        "last": block.last,
                        "errors": errors,
                        "means": table.means,
                        "quantiles": table.quantiles,
                    }
                    for block, table, errors in zip(self.blocks, self.tables, self.errors, strict=True)
                ],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "QuantileCalibrator":
        """The calibrator that `to_json` wrote. Raises `ValueError` where it holds other quantiles than published."""
        facts = json.loads(text)
        if facts["levels"] != list(_LEVELS):
            raise ValueError(
                f"the calibrator holds the quantiles {facts['levels']}, published are {list(_LEVELS)}; train again"
            )
        blocks = facts["blocks"]
        return cls(
            tuple(HorizonBlock(block["first"], block["last"]) for block in blocks),
            tuple(QuantileTable(tuple(b["means"]), tuple(tuple(row) for row in b["quantiles"])) for b in blocks),
            tuple(block["errors"] for block in blocks),
        )


def assumed_table() -> QuantileTable:
    """The spread where nothing was observed: negative binomial with variance m + m^2 / 2."""
    means = np.geomspace(1e-3, 1e3, 121)
    return _table(means, np.array([_negative_binomial_quantiles(mean) for mean in means]))


def _negative_binomial_quantiles(mean: float) -> Floats:
    """Quantiles of the failures before the second success, whose mean is `mean` and variance mean + mean^2 / 2.

    No more than k failures come before it unless the first k + 2 trials succeed less than twice.
    """
    success = 2 / (2 + mean)
    trials = np.arange(1, 20 + int(12 * mean))
    distribution = 1 - (1 - success) ** trials * (1 + trials * success)
    return np.searchsorted(distribution, _LEVELS).astype(np.float64)


def _known(predictions: pl.DataFrame | None) -> pl.DataFrame:
    if predictions is None:
        return pl.DataFrame(schema={"mean": pl.Float64, "units": pl.Float64, "horizon": pl.Int16})
    return predictions.filter(pl.col("units").is_not_null()).select("mean", "units", "horizon")


def _empirical(known: pl.DataFrame) -> QuantileTable:
    mean, units = (known[name].cast(pl.Float64).to_numpy() for name in ("mean", "units"))
    bins = min(MOST_BINS, max(1, known.height // ROWS_PER_BIN))
    edges = np.quantile(mean, np.arange(1, bins) / bins)
    # Equal means fall into the same bin: a simple rule predicts the same few numbers over and over.
    bin_of = np.searchsorted(edges, mean)
    centres, rows = [], []
    for number in np.unique(bin_of):
        own = bin_of == number
        centre = float(mean[own].mean())
        if centre >= 1:
            # A bin of large means spans a wide range: what repeats there is the ratio, not the number of units.
            row = np.quantile(units[own] / mean[own].clip(_SMALLEST_MEAN), _LEVELS) * centre
        else:
            row = np.quantile(units[own], _LEVELS, method="inverted_cdf")
        centres.append(max(centre, _SMALLEST_MEAN))
        rows.append(row)
    return _table(np.array(centres), np.array(rows))


def _table(means: Floats, quantiles: Floats) -> QuantileTable:
    """Make the quantiles rise with the mean and with their level."""
    rising = np.maximum.accumulate(np.maximum.accumulate(quantiles, axis=0), axis=1)
    return QuantileTable(tuple(means.tolist()), tuple(tuple(row) for row in rising.tolist()))
