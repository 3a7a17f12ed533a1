"""From the demand panel to what was known of each series at the close of each day (`features.demand_history`).

Here: lags and rolling statistics, each over days up to and including the as-of date. Not here: what is known ahead
of a day (the panel itself holds it) and the pairing of a target day with its as-of date
(`forecasting/training_set.py`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.dense import SERIES, DensePanel, GroupDays, Positions
from retail_platform.features.rolling import rolling_means, rolling_quantiles

LAGS = (0, 1, 2, 3, 4, 5, 6, 7, 13, 14, 20, 21, 27, 28)
WEEKS = (4, 8, 13)
WINDOWS = (7, 14, 28, 56, 91, 182, 364)
DEVIATIONS = (7, 28, 91)
SPANS = (15, 30, 100)

_READ = (
    "shard",
    *SERIES,
    "date",
    "department",
    "units",
    "listed",
    "in_stock",
    "price",
    "on_promotion",
    "temperature",
    "precipitation",
    "consumer_prices",
    "unemployment",
)
"""Columns of the demand panel from which a history is made; of a large panel the others are not copied."""
_OBSERVED = pl.col("observed")

_MEANS: dict[str, tuple[pl.Expr, tuple[int, ...], int]] = {
    "mean": (_OBSERVED, WINDOWS, 1),
    "weekday_mean": (_OBSERVED, WEEKS, 7),
    "selling_share": (_OBSERVED > 0, (28, 112), 1),
    "available_share": (_OBSERVED.is_not_null(), (28,), 1),
    "promotion_mean": (pl.col("on_promotion"), (28,), 1),
    "price_mean": (pl.col("price"), (28, 364), 1),
    "temperature_mean": (pl.col("temperature"), (7,), 1),
    "precipitation_mean": (pl.col("precipitation"), (7,), 1),
}
"""Of what means are taken, of how many rows, and how many days these lie apart."""


def build_history(demand: pl.DataFrame) -> pl.DataFrame:
    """Compute features.demand_history from a frame of features.demand: one row per series and day up to the last one
    whose sales are known.

    Days on which the item was out of stock or not listed, and days whose sales have not arrived from the store, are
    missing from every statistic of units. A row depends on no day after its as-of date.
    """
    known = demand.lazy().filter(pl.col("date") <= pl.lit(known_until(demand), pl.Date)).select(_READ).collect()
    dense = DensePanel.of(known, "date")
    known = dense.frame
    panel = known.select(
        "units",
        "on_promotion",
        "price",
        "temperature",
        "precipitation",
        series=pl.Series(dense.series, dtype=pl.UInt32),
        age=pl.Series(dense.ages, dtype=pl.UInt32),
        observed=observed_units(),
    )
    history = pl.concat(
        [
            known.select("shard", *SERIES, "consumer_prices", "unemployment", as_of_date="date"),
            panel.select(_lags()),
            panel.select(statistic.over("series") for statistic in _statistics()),
            _means(panel, dense.ages),
            _unit_quantiles(panel["observed"], dense.ages),
            _department(known, panel),
            _item_mean(known, panel),
        ],
        how="horizontal",
    )
    contract = TABLES["features.demand_history"].polars_schema
    return history.select(pl.col(name).cast(dtype) for name, dtype in contract.items())


def known_until(demand: pl.DataFrame) -> date | None:
    """The last day of a demand panel whose sales are known; null where none are."""
    day: date | None = demand.select(pl.col("date").filter(pl.col("units").is_not_null()).max()).item()
    return day


def observed_units() -> pl.Expr:
    """Units of a day of the demand panel where they tell the demand; null on a day on which the item was out of stock
    or not listed, and on days to come.
    """
    return pl.when(pl.col("listed") & pl.col("in_stock")).then(pl.col("units"))


def _statistics() -> list[pl.Expr]:
    """Statistics of one series that follow its days one by one."""
    observed_days = _OBSERVED.is_not_null().cum_sum()
    days_at_sale = pl.when(pl.col("units") > 0).then(observed_days).forward_fill()
    return [
        *(_OBSERVED.rolling_std(days, min_samples=2).alias(f"std_{days}") for days in DEVIATIONS),
        *(
            _OBSERVED.ewm_mean(span=days, ignore_nulls=True).forward_fill().alias(f"weighted_mean_{days}")
            for days in SPANS
        ),
        (observed_days - days_at_sale).alias("zero_run"),
        pl.int_range(pl.len()).alias("days_since_first_sale"),
        pl.col("price").forward_fill().alias("price_last"),
        pl.col("price").cum_max().forward_fill().alias("price_max"),
    ]


def _lags() -> list[pl.Expr]:
    """Of a whole panel: a shift of all its rows takes a third of the time of one within each series."""
    return [pl.when(pl.col("age") >= days).then(_OBSERVED.shift(days)).alias(f"units_lag_{days}") for days in LAGS]


def _means(panel: pl.DataFrame, ages: Positions, names: Collection[str] = tuple(_MEANS)) -> pl.DataFrame:
    """Means over days of the series, and over the same weekday of weeks."""
    return pl.DataFrame(
        mean.alias(f"{name}_{number}")
        for name, (values, windows, step) in _MEANS.items()
        if name in names
        for number, mean in zip(
            windows, rolling_means(panel.select(values).to_series(), ages, windows, step=step), strict=True
        )
    )


def _unit_quantiles(observed: pl.Series, ages: Positions) -> pl.DataFrame:
    median, upper = rolling_quantiles(observed, ages, 28, (0.5, 0.9))
    return pl.DataFrame({"median_28": median, "upper_28": upper})


@dataclass(frozen=True)
class _Groups(GroupDays):
    """Groups of series by the values of some columns of the panel."""

    @classmethod
    def of(cls, known: pl.DataFrame, keys: Sequence[str]) -> "_Groups":
        """Groups of rows that are equal in `keys`, where missing values are equal to each other."""
        group, groups = np.zeros(known.height, np.int64), 1
        for key in keys:
            names = known[key].unique()
            codes = known[key].cast(pl.Enum(names.drop_nulls())).to_physical().fill_null(names.len())
            group = group * (names.len() + 1) + codes.to_numpy().astype(np.int64)
            groups *= names.len() + 1
        return cls.numbered(group, groups, known["date"])

    def mean(self, values: pl.Series) -> pl.Series:
        """The mean of the known values of each cell, null where there is none."""
        sums, counts = self.sums(values)
        return _where(counts > 0, sums / np.maximum(counts, 1))

    def rolling(self, cells: pl.Series, *windows: int) -> list[pl.Series]:
        """For each row of the panel, the mean of its group's cells over so many days."""
        means = rolling_means(cells, np.tile(np.arange(self.days), self.groups), windows)
        return [mean.gather(self.cells) for mean in means]


def _where(there: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> pl.Series:
    return pl.select(pl.when(pl.Series(there)).then(pl.Series(values))).to_series()


def _department(known: pl.DataFrame, panel: pl.DataFrame) -> pl.DataFrame:
    """Units of the store's department per day and per item and day, and the price of its items."""
    groups = _Groups.of(known, ["store_id", "department"])
    sums, counts = groups.sums(panel["units"])
    total, per_item = _where(counts > 0, sums), groups.mean(panel["observed"])
    week, month = groups.rolling(total, 7, 28)
    (month_of_items,) = groups.rolling(per_item, 28)
    last_price = panel.select(pl.col("price").forward_fill().over("series")).to_series()
    return pl.DataFrame(
        {
            "store_department_price": groups.mean(last_price).gather(groups.cells),
            "store_department_mean_7": week,
            "store_department_mean_28": month,
            "department_item_mean_28": month_of_items,
        }
    )


def _item_mean(known: pl.DataFrame, panel: pl.DataFrame) -> pl.DataFrame:
    """Units of the item per store and day, averaged over 28 days, of the stores where it was available."""
    groups = _Groups.of(known, ["item_id"])
    (month,) = groups.rolling(groups.mean(panel["observed"]), 28)
    return pl.DataFrame({"item_stores_mean_28": month})
