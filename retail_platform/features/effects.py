"""What price and promotions do to demand: elasticities and uplifts with intervals, from the demand panel.

Here: the estimate, by group of items. Not here: the page that shows it (`monitoring/profile_page.py`), and forecasting,
which learns effects of its own.

Model: the logarithm of a day's expected units is a level of the series and quarter, plus elasticity x logarithm of
the price paid, plus the effects of promotion, weekday and events. It is fitted to the units, not to their logarithm,
so that days without a sale count: a regression of log on log would leave them out, and they are the days on which a
price was too high. Only days of the same series and the same 91 days are compared with each other, so that neither
popular items nor seasons, trends or launches pass for an effect of price. On a day that sold out, demand was at least
what was sold: its expectation takes the place of the units, by a negative binomial whose dispersion is estimated too.

Intervals (95 %) leave out one item after the other (jackknife), because all days and stores of an item err alike;
they hold if prices and promotions were not set in expectation of unusual demand, if customers do not shift purchases
within the quarter, and if items do not take each other's sales. None of this can be seen in the panel. On 72
simulated categories of 7 to 18 items each, whose promotions sold out on every fifth day, 86 % of the elasticity
intervals and 85 % of the uplift intervals held the truth: with few items they are a little too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.features.dense import SERIES

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BLOCK_DAYS = 91
FEWEST_ITEMS = 5
"""Items whose price, or promotion, changes within a quarter, below which no interval means anything."""
MOST_ROWS = 300_000
CONFIDENCE = 0.95

_SMALLEST_CHANGE = 0.01
_SMALLEST_DISPERSION = 1e-3
_ROUNDS, _STEPS = 30, 50
_PRICE, _PROMOTION = "log_price", "on_promotion"

EFFECTS = pl.Schema(
    {
        "group": pl.String,
        "items": pl.Int64,
        "series": pl.Int64,
        "days": pl.Int64,
        "promoted_days": pl.Int64,
        "sold_out_days": pl.Int64,
        **dict.fromkeys(("elasticity", "elasticity_low", "elasticity_high"), pl.Float64),
        **dict.fromkeys(("uplift", "uplift_low", "uplift_high"), pl.Float64),
        **dict.fromkeys(("beside_price", "beside_price_low", "beside_price_high"), pl.Float64),
        "note": pl.String,
    }
)
"""Columns of `price_and_promotion_effects`."""


@dataclass(frozen=True)
class _Sample:
    """Days of a group in the order of series, block and date."""

    units: Floats
    sold_out: Flags
    regressors: Floats
    starts: Integers
    """First row of each block: a series within a quarter."""
    item_of_block: Integers

    @property
    def block_of_row(self) -> Integers:
        return np.repeat(np.arange(self.starts.size), np.diff(np.append(self.starts, self.units.size)))

    def sums(self, values: Floats) -> Floats:
        """Sums by block."""
        total: Floats = np.add.reduceat(values, self.starts)
        return total


@dataclass(frozen=True)
class _Fit:
    coefficients: Floats
    expected: Floats
    demand: Floats
    """Units, and on days that sold out the expected demand."""


def price_and_promotion_effects(demand: pl.DataFrame, *, by: str = "category", groups: int = 20) -> pl.DataFrame:
    """Effects by group of items, the columns of `EFFECTS`; the groups that sell most, at most `groups` of them.

    `demand` is the demand panel; where it has a column `sold_out` too, that says on which days stock ran out though
    something was sold. `elasticity` is the change of demand in percent for one percent more of the price paid;
    `uplift` the factor on demand by a promotion as a whole, `beside_price` what of it remains beside the lower price.
    An effect that cannot be told is null, and `note` says why. Prices that nobody announced do not count: they are
    averages of what was paid.
    """
    days = _days(demand, by)
    largest = days.group_by("group").agg(pl.col("units").sum()).sort("units", "group", descending=[True, False])
    rows = [_effects(name, days.filter(group=name)) for name in largest["group"].head(groups)]
    return pl.DataFrame(rows, schema=EFFECTS)


def _days(demand: pl.DataFrame, by: str) -> pl.DataFrame:
    """Days whose units are known and on which something could be sold, with their block."""
    date, known = pl.col("date"), pl.col("units").is_not_null()
    sold_out = pl.col("sold_out").fill_null(value=False) if "sold_out" in demand.columns else pl.lit(value=False)
    paid = pl.col("price").cast(pl.Float64) * (1 - pl.col("promotion_depth").cast(pl.Float64))
    return (
        demand.filter(known & pl.col("listed") & pl.col("in_stock"))
        .select(
            *SERIES,
            "date",
            pl.col("units").cast(pl.Float64),
            pl.col(_PROMOTION).cast(pl.Float64),
            pl.when(pl.col("price_announced") & (paid > 0)).then(paid.log()).alias(_PRICE),
            group=pl.col(by).fill_null("(none)"),
            weekday=date.dt.weekday(),
            event=(pl.col("event_name").is_not_null()).cast(pl.Float64),
            payday=pl.col("is_payday").cast(pl.Float64),
            sold_out=sold_out & (pl.col("units") > 0),
            block=(date - date.min()).dt.total_days() // BLOCK_DAYS,
        )
        .sort(*SERIES, "date")
    )


def _effects(name: str, days: pl.DataFrame) -> dict[str, object]:
    days = _within_reason(days)
    found: dict[str, object] = {
        "group": name,
        "items": days["item_id"].n_unique(),
        "series": days.select(SERIES).n_unique(),
        "days": days.height,
        "promoted_days": days.filter(pl.col(_PROMOTION) > 0).height,
        "sold_out_days": days.filter("sold_out").height,
    }
    notes = []
    promoted = _items_that_vary(days, _PROMOTION)
    if promoted < FEWEST_ITEMS:
        notes.append(f"promotions of {promoted} items, {FEWEST_ITEMS} are needed")
    else:
        log, low, high = _interval(days, [_PROMOTION])[_PROMOTION]
        found |= {"uplift": np.exp(log), "uplift_low": np.exp(low), "uplift_high": np.exp(high)}
    priced = days.filter(pl.col(_PRICE).is_not_null())
    changing = _items_that_vary(priced, _PRICE)
    if changing < FEWEST_ITEMS:
        notes.append(f"price changes of {changing} items, {FEWEST_ITEMS} are needed")
    else:
        both = [_PRICE, *([_PROMOTION] if _items_that_vary(priced, _PROMOTION) >= FEWEST_ITEMS else [])]
        intervals = _interval(priced, both)
        found |= dict(zip(("elasticity", "elasticity_low", "elasticity_high"), intervals[_PRICE], strict=True))
        if _PROMOTION in intervals:
            names = ("beside_price", "beside_price_low", "beside_price_high")
            found |= dict(zip(names, map(np.exp, intervals[_PROMOTION]), strict=True))
    return found | {"note": "; ".join(notes) or None}


def _within_reason(days: pl.DataFrame) -> pl.DataFrame:
    """Whole series, those that sell most, up to the rows that are worth the time."""
    sizes = (
        days.group_by(SERIES)
        .agg(pl.col("units").sum(), rows=pl.len())
        .sort("units", *SERIES, descending=[True, False, False])
    )
    chosen = sizes.filter((pl.col("rows").cum_sum() <= MOST_ROWS) | (pl.int_range(pl.len()) == 0))
    return days.join(chosen, on=SERIES, how="semi", maintain_order="left")


def _items_that_vary(days: pl.DataFrame, column: str) -> int:
    span = pl.col(column).max() - pl.col(column).min()
    blocks = days.group_by(*SERIES, "block").agg(span=span, units=pl.col("units").sum())
    return blocks.filter((pl.col("span") > _SMALLEST_CHANGE) & (pl.col("units") > 0))["item_id"].n_unique()


def _interval(days: pl.DataFrame, effects: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Estimate, lower and upper bound of each effect, on the scale of logarithms."""
    from scipy.stats import t as students_t

    sample = _sample(days, effects)
    fit = _fit(sample)
    variance, items = _jackknife(sample, fit)
    reach = float(students_t.ppf((1 + CONFIDENCE) / 2, items - 1)) * np.sqrt(np.diag(variance))
    return {
        name: (float(value), float(value - width), float(value + width))
        for name, value, width in zip(effects, fit.coefficients, reach, strict=False)
    }


def _sample(days: pl.DataFrame, effects: Sequence[str]) -> _Sample:
    """Blocks and weekdays without a sale say nothing of effects, and would have coefficients without bound."""
    sold = pl.col("units").sum()
    kept = days.filter((sold.over(*SERIES, "block") > 0) & (sold.over("weekday") > 0))
    blocks = kept.select(pl.struct(*SERIES, "block").rle_id()).to_series().to_numpy()
    starts = np.flatnonzero(np.append(True, blocks[1:] != blocks[:-1]))
    others = [kept[name].to_numpy() for name in ("event", "payday")]
    weekdays = [(kept["weekday"] == day).cast(pl.Float64).to_numpy() for day in range(2, 8)]
    items = kept["item_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
    return _Sample(
        units=kept["units"].to_numpy(),
        sold_out=kept["sold_out"].to_numpy(),
        regressors=np.column_stack([*(kept[name].to_numpy() for name in effects), *weekdays, *others]),
        starts=starts,
        item_of_block=items[starts],
    )


def _fit(sample: _Sample) -> _Fit:
    """Poisson regression with a level per block, in turn with the demand and the dispersion of days that sold out."""
    demand, square, dispersion = sample.units.copy(), sample.units**2, 0.0
    for _ in range(_ROUNDS):
        coefficients, expected = _poisson(sample, demand)
        if not sample.sold_out.any():
            break
        # Of what the days spread around their expectation, whatever a Poisson distribution does not explain.
        excess = (square - 2 * expected * demand + expected**2 - expected).sum() / (expected**2).sum()
        dispersion = max(_SMALLEST_DISPERSION, float(excess))
        first, second = _demand_when_sold_out(sample, expected, dispersion)
        change = np.abs(first - demand[sample.sold_out]).max()
        demand[sample.sold_out], square[sample.sold_out] = first, second
        if change < 1e-3:
            break
    return _Fit(coefficients, expected, demand)


def _poisson(sample: _Sample, demand: Floats) -> tuple[Floats, Floats]:
    """Newton's method on the likelihood given each block's total: coefficients, and the expected units of each day."""
    x, block = sample.regressors, sample.block_of_row
    totals = sample.sums(demand)[block]
    coefficients = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        weight = np.exp(x @ coefficients)
        expected: Floats = totals * weight / sample.sums(weight)[block]
        step = np.linalg.pinv(_information(sample, expected)) @ (x.T @ (demand - expected))
        coefficients += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-8:
            break
    return coefficients, expected


def _information(
    sample: _Sample, expected: Floats, rows: slice | Integers = slice(None), blocks: slice | Flags = slice(None)
) -> Floats:
    """Second derivative of the likelihood with its sign reversed, of all days or of these rows, which make up these
    blocks.
    """
    weighted = expected[:, None] * sample.regressors
    means, totals = np.add.reduceat(weighted, sample.starts)[blocks], sample.sums(expected)[blocks, None]
    information: Floats = sample.regressors[rows].T @ weighted[rows] - (means / totals).T @ means
    return information


def _demand_when_sold_out(sample: _Sample, expected: Floats, dispersion: float) -> tuple[Floats, Floats]:
    """Mean and mean square of the demand of the days that sold out, given that it was at least what was sold."""
    from scipy.stats import nbinom

    mean, sold, size = expected[sample.sold_out], np.ceil(sample.units[sample.sold_out]), 1 / dispersion
    success = size / (size + mean)
    # The moments of a negative binomial above a bound are its moments times ratios of two tails.
    at_least = np.maximum(nbinom.sf(sold - 1, size, success), 1e-12)
    one = mean * nbinom.sf(sold - 2, size + 1, success) / at_least
    two = (1 + dispersion) * mean**2 * nbinom.sf(sold - 3, size + 2, success) / at_least
    # Far out in the tail the ratios are those of rounding errors.
    first = np.clip(one, sold, 10 * np.maximum(sold, mean))
    return first, np.clip(two + first, first**2, 10 * first**2)


def _jackknife(sample: _Sample, fit: _Fit) -> tuple[Floats, int]:
    """Variance of the coefficients from leaving out each item in turn, by one Newton step each; number of items."""
    residual = (fit.demand - fit.expected)[:, None] * sample.regressors
    score = np.add.reduceat(residual, sample.starts)
    information = _information(sample, fit.expected)
    item_of_row = sample.item_of_block[sample.block_of_row]
    items = np.unique(sample.item_of_block)
    changes = []
    for item in items:
        blocks, rows = sample.item_of_block == item, np.flatnonzero(item_of_row == item)
        without = information - _information(sample, fit.expected, rows, blocks)
        changes.append(np.linalg.pinv(without) @ score[blocks].sum(axis=0))
    variance: Floats = (items.size - 1) / items.size * np.transpose(changes) @ np.array(changes)
    return variance, int(items.size)
