"""The spread around a mean forecast, learned from forecast errors that the model did not see in training.

Here: conditional quantiles of units given the predicted mean, per horizon block and class of series, for any mean
model; and the same for the nodes of the hierarchy. Not here: the mean itself (`forecasting/models.py`), and the
quantiles of sums over days, which are not sums of quantiles (`replenishment/`).

Method for series: past forecasts are cut into classes by the dispersion of the series (variance relative to mean, as it
was at the origin) and, within a class, sorted by their predicted mean and cut into bins of about equal count; in each
bin the empirical quantiles of what was sold are taken. Between the bins' centres they are interpolated, above the
highest they grow in proportion, and below the lowest they stay as they are there, or shrink in proportion where that
one is a unit or more. Quantiles rise with the mean by construction. Without enough past errors the spread is that of a
negative binomial whose variance is m + m^2 / 2 for a mean m; it is also the least above a highest bin of less than a
unit.

Method for nodes: the same where a level has many of them. Where it has few, the quantiles lie so many standard
deviations of past relative errors from the mean as those of Student's distribution with 5 degrees of freedom; the
deviation falls as the mean of the node grows.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.features.dense import SERIES
from retail_platform.forecasting.training_set import HorizonBlock

Floats = npt.NDArray[np.float64]

FEWEST_ERRORS = 200
"""Past errors below which a block borrows those of all blocks, and below which these give way to the assumption."""
ROWS_PER_BIN = 400
ROWS_PER_CLASS = 4_000
MOST_CLASSES = 5
ORDINARY_DISPERSION = 1.0
"""Of a series of which too little is known: that of a Poisson distribution."""
MANY_NODES = 100
FEWEST_NODE_ERRORS = 20
UNKNOWN_DEVIATION = 0.2
"""Standard deviation of relative errors where none was observed."""
MOST_BINS = 50
LARGEST_QUANTILE = 1e12

_SMALLEST_MEAN = 1e-6
_SMALLEST_OF_A_BIN = 0.1
_SMALLEST_RATE = 0.05
_SMALLEST_VARIANCE = 1e-6
_ROUNDS = 10
_LEVELS = np.array(list(QUANTILES.values()))
# Quantiles of Student's distribution with 5 degrees of freedom above its median, scaled to a standard deviation of 1.
_STUDENT_ABOVE = {0.5: 0.0, 0.75: 0.5629, 0.835: 0.8355, 0.9: 1.1432, 0.95: 1.5608, 0.975: 1.9912, 0.995: 3.1233}
_STUDENT = np.array([_STUDENT_ABOVE[p] if p >= 0.5 else -_STUDENT_ABOVE[round(1 - p, 3)] for p in QUANTILES.values()])


@dataclass(frozen=True)
class QuantileTable:
    """Quantiles of units (rows) at the predicted means `means`, ascending; columns as in QUANTILES."""

    means: tuple[float, ...]
    quantiles: tuple[tuple[float, ...], ...]

    def at(self, mean: Floats) -> Floats:
        """Quantiles at each of the means: means x QUANTILES, rising along both axes, not negative."""
        centres = np.array(self.means)
        inside = np.column_stack([np.interp(mean, centres, column) for column in np.array(self.quantiles).T])
        beyond = np.maximum(mean / max(centres[-1], 1.0), 1.0)
        if centres[0] >= 1:
            beyond *= np.minimum(mean / centres[0], 1.0)
        quantiles: Floats = np.clip(inside * beyond[:, None], 0.0, LARGEST_QUANTILE)
        higher = mean > centres[-1]
        if centres[-1] < 1 and higher.any():
            # What a series that sells next to nothing did says little of one that sells.
            quantiles[higher] = np.maximum(quantiles[higher], assumed_table().at(mean[higher]))
        return quantiles


@dataclass(frozen=True)
class QuantileCalibrator:
    """Tables by horizon block and, within it, class of dispersion; `errors` says how many past forecasts each was
    learned from, 0 if assumed. `edges` are the bounds between the classes.
    """

    blocks: tuple[HorizonBlock, ...]
    edges: tuple[float, ...]
    tables: tuple[tuple[QuantileTable, ...], ...]
    errors: tuple[tuple[int, ...], ...]

    @classmethod
    def fit(cls, predictions: pl.DataFrame | None, blocks: Sequence[HorizonBlock]) -> "QuantileCalibrator":
        """Learn from past forecasts (columns mean, units, horizon, dispersion) whose targets lay after their model's
        cutoff.

        Rows without units are passed over. With fewer than 200 errors in a block all horizons count together, and
        with fewer than 200 in all, or none (None), the assumed spread is taken. Classes are made where each gets
        thousands of errors.
        """
        known = _known(predictions)
        classes = max(1, min(MOST_CLASSES, known.height // (len(blocks) * ROWS_PER_CLASS)))
        dispersion = known["dispersion"].fill_null(ORDINARY_DISPERSION).to_numpy()
        edges = np.quantile(dispersion, np.arange(1, classes) / classes) if known.height else np.array([])
        class_of = np.searchsorted(edges, dispersion)
        tables, errors = [], []
        for block in blocks:
            in_block = ((known["horizon"] >= block.first) & (known["horizon"] <= block.last)).to_numpy()
            row: list[QuantileTable] = []
            counts: list[int] = []
            for number in range(classes):
                own = known.filter(pl.Series(in_block & (class_of == number)))
                used = own if own.height >= FEWEST_ERRORS else known
                enough = used.height >= FEWEST_ERRORS
                row.append(_empirical(used) if enough else assumed_table())
                counts.append(used.height if enough else 0)
            tables.append(tuple(row))
            errors.append(tuple(counts))
        return cls(tuple(blocks), tuple(edges.tolist()), tuple(tables), tuple(errors))

    def apply(self, forecast: pl.DataFrame) -> pl.DataFrame:
        """Add the columns of QUANTILES to a forecast with mean, horizon, dispersion and listed.

        Horizons beyond the last block use it. Days on which the item is not listed have no demand at all.
        """
        mean, horizon = forecast["mean"].to_numpy(), forecast["horizon"].to_numpy()
        dispersion = forecast["dispersion"].fill_null(ORDINARY_DISPERSION).to_numpy()
        class_of = np.searchsorted(np.array(self.edges), dispersion)
        values = np.zeros((forecast.height, _LEVELS.size))
        for block, tables in zip(self.blocks, self.tables, strict=True):
            for number, table in enumerate(tables):
                own = (horizon >= block.first) & (class_of == number)
                values[own] = table.at(mean[own])
        values[~forecast["listed"].to_numpy()] = 0.0
        return forecast.with_columns(pl.Series(name, values[:, i]) for i, name in enumerate(QUANTILES))

    def to_json(self) -> str:
        return json.dumps(
            {
                "levels": list(_LEVELS),
                "edges": self.edges,
                "blocks": [
                    {
                        "first": block.first,
                        "last": block.last,
                        "classes": [
                            {"errors": count, "means": table.means, "quantiles": table.quantiles}
                            for count, table in zip(counts, tables, strict=True)
                        ],
                    }
                    for block, tables, counts in zip(self.blocks, self.tables, self.errors, strict=True)
                ],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "QuantileCalibrator":
        """The calibrator that `to_json` wrote. Raises `ValueError` where it holds other quantiles than published."""
        facts = json.loads(text)
        _same_levels(facts["levels"])
        blocks = facts["blocks"]
        return cls(
            tuple(HorizonBlock(block["first"], block["last"]) for block in blocks),
            tuple(facts["edges"]),
            tuple(tuple(_table_from(one) for one in block["classes"]) for block in blocks),
            tuple(tuple(one["errors"] for one in block["classes"]) for block in blocks),
        )


@dataclass(frozen=True)
class Deviation:
    """Spread of relative errors: their variance is `constant` + `falling` / mean. What all series of a node have in
    common keeps its share of a larger mean, what each has for itself evens out.
    """

    constant: float
    falling: float

    @classmethod
    def fit(cls, mean: Floats, units: Floats) -> "Deviation":
        """Least squares on the squared relative errors, each weighed by the variance to be expected of it; the unknown
        deviation counts as one error.
        """
        if not mean.size:
            return cls(UNKNOWN_DEVIATION**2, 0.0)
        squares = np.append(((units - mean) / mean) ** 2, UNKNOWN_DEVIATION**2)
        inverse = 1 / np.append(mean, mean.mean())
        constant, falling = float(squares.mean()), 0.0
        for _ in range(_ROUNDS):
            weight = 1 / np.maximum(constant + falling * inverse, _SMALLEST_VARIANCE) ** 2
            sums = [float((weight * values).sum()) for values in (np.ones(inverse.size), inverse, inverse**2)]
            aims = [float((weight * values).sum()) for values in (squares, squares * inverse)]
            determinant = sums[0] * sums[2] - sums[1] ** 2
            if determinant <= 1e-9 * sums[0] * sums[2]:
                # The means are all alike.
                return cls(float(squares.mean()), 0.0)
            constant = (aims[0] * sums[2] - aims[1] * sums[1]) / determinant
            falling = (aims[1] * sums[0] - aims[0] * sums[1]) / determinant
            if constant < 0:
                constant, falling = 0.0, aims[1] / sums[2]
            elif falling < 0:
                constant, falling = aims[0] / sums[0], 0.0
        return cls(constant, falling)

    def at(self, mean: Floats) -> Floats:
        """Standard deviation of the relative errors at each of the means."""
        deviation: Floats = np.sqrt(self.constant + self.falling / np.maximum(mean, _SMALLEST_MEAN))
        return deviation


@dataclass(frozen=True)
class NodeSpread:
    """Quantiles of the nodes of the hierarchy: by level and horizon block a table, or the deviation of relative
    errors.
    """

    blocks: tuple[HorizonBlock, ...]
    levels: Mapping[str, tuple[QuantileTable | Deviation, ...]]

    @classmethod
    def fit(cls, errors: pl.DataFrame | None, blocks: Sequence[HorizonBlock]) -> "NodeSpread":
        """Learn from past forecasts of nodes: level, node, horizon, mean, units. A block with fewer than 20 errors
        borrows those of all; a level without any has the spread of `UNKNOWN_DEVIATION`.
        """
        levels: dict[str, tuple[QuantileTable | Deviation, ...]] = {}
        if errors is None:
            return cls(tuple(blocks), levels)
        known = errors.filter((pl.col("mean") > 0) & pl.col("units").is_not_null())
        for (level,), own in sorted(known.group_by("level"), key=lambda part: str(part[0])):
            many = own["node"].n_unique() >= MANY_NODES
            spreads: list[QuantileTable | Deviation] = []
            for block in blocks:
                of_block = own.filter(pl.col("horizon").is_between(block.first, block.last))
                used = of_block if of_block.height >= FEWEST_NODE_ERRORS else own
                spreads.append(_empirical(used) if many and used.height >= FEWEST_ERRORS else _deviation(used))
            levels[str(level)] = tuple(spreads)
        return cls(tuple(blocks), levels)

    def apply(self, forecast: pl.DataFrame) -> pl.DataFrame:
        """Add the columns of QUANTILES to a forecast of nodes with level, horizon and mean."""
        mean, horizon = forecast["mean"].to_numpy(), forecast["horizon"].to_numpy()
        level = forecast["level"].to_numpy()
        values = np.zeros((forecast.height, _LEVELS.size))
        for name in forecast["level"].unique():
            spreads = self.levels.get(name, (Deviation(UNKNOWN_DEVIATION**2, 0.0),) * len(self.blocks))
            for block, spread in zip(self.blocks, spreads, strict=True):
                own = (horizon >= block.first) & (level == name)
                if isinstance(spread, QuantileTable):
                    values[own] = spread.at(mean[own])
                else:
                    values[own] = np.maximum(mean[own][:, None] * (1 + spread.at(mean[own])[:, None] * _STUDENT), 0.0)
        return forecast.with_columns(pl.Series(name, values[:, i]) for i, name in enumerate(QUANTILES))

    def to_json(self) -> str:
        return json.dumps(
            {
                "levels": list(_LEVELS),
                "blocks": [[block.first, block.last] for block in self.blocks],
                "nodes": {
                    level: [
                        {"means": spread.means, "quantiles": spread.quantiles}
                        if isinstance(spread, QuantileTable)
                        else {"constant": spread.constant, "falling": spread.falling}
                        for spread in spreads
                    ]
                    for level, spreads in self.levels.items()
                },
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "NodeSpread":
        """The spread that `to_json` wrote. Raises `ValueError` where it holds other quantiles than published."""
        facts = json.loads(text)
        _same_levels(facts["levels"])
        return cls(
            tuple(HorizonBlock(first, last) for first, last in facts["blocks"]),
            {
                level: tuple(_table_from(one) if "means" in one else Deviation(**one) for one in spreads)
                for level, spreads in facts["nodes"].items()
            },
        )


def dispersions(history: pl.DataFrame, origin: date) -> pl.DataFrame:
    """Dispersion of each series as known at the origin: store_id, item_id, dispersion; null where the last 91 days hold
    fewer than two observed ones.
    """
    return history.filter(pl.col("as_of_date") == origin).select(
        *SERIES, dispersion=(pl.col("std_91") ** 2 / (pl.col("mean_91") + _SMALLEST_RATE)).cast(pl.Float64)
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


def _deviation(known: pl.DataFrame) -> Deviation:
    return Deviation.fit(*(known[name].cast(pl.Float64).to_numpy() for name in ("mean", "units")))


def _same_levels(levels: Sequence[float]) -> None:
    if list(levels) != list(_LEVELS):
        raise ValueError(f"the calibrator holds the quantiles {levels}, published are {list(_LEVELS)}; train again")


def _table_from(facts: Mapping[str, Any]) -> QuantileTable:
    return QuantileTable(tuple(facts["means"]), tuple(tuple(row) for row in facts["quantiles"]))


def _known(predictions: pl.DataFrame | None) -> pl.DataFrame:
    if predictions is None:
        return pl.DataFrame(
            schema={"mean": pl.Float64, "units": pl.Float64, "horizon": pl.Int16, "dispersion": pl.Float64}
        )
    return predictions.filter(pl.col("units").is_not_null()).select("mean", "units", "horizon", "dispersion")


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
            # A bin of large means spans a wide range: what repeats there is the ratio, not the number of units. Where
            # there are few errors it may begin at zero, and a ratio to next to nothing says nothing of the others.
            row = np.quantile(units[own] / np.maximum(mean[own], centre * _SMALLEST_OF_A_BIN), _LEVELS) * centre
        else:
            row = _quantiles_of_counts(units[own])
        centres.append(max(centre, _SMALLEST_MEAN))
        rows.append(row)
    return _table(np.array(centres), np.array(rows))


def _quantiles_of_counts(units: Floats) -> Floats:
    """Quantiles of a few small numbers, which hold as often as they say on average over the bins.

    The smallest number that holds often enough holds too often: where no unit covers 88 % of the days and one 96 %, one
    is far more than nine days of ten need. So the steps of the distribution are joined by lines through their middles
    (the mid-distribution function of Parzen), and that one of the two numbers counts whose share is nearer.
    """
    values, counts = np.unique(units, return_counts=True)
    reached = np.cumsum(counts) / units.size
    middle = reached - counts / (2 * units.size)
    quantiles: Floats = np.where(reached[0] >= _LEVELS, values[0], np.interp(_LEVELS, middle, values))
    return quantiles


def _table(means: Floats, quantiles: Floats) -> QuantileTable:
    """Make the quantiles rise with the mean and with their level."""
    rising = np.maximum.accumulate(np.maximum.accumulate(quantiles, axis=0), axis=1)
    return QuantileTable(tuple(means.tolist()), tuple(tuple(row) for row in rising.tolist()))
