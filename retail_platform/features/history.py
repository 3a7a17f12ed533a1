"""From the demand panel to what was known of each series at the close of each day (`features.demand_history`).

Here: lags and rolling statistics, each over days up to and including the as-of date. Not here: what is known ahead
of a day (the panel itself holds it) and the pairing of a target day with its as-of date
(`forecasting/training_set.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.features.dense import SERIES, DensePanel, GroupDays
from retail_platform.features.rolling import rolling_quantiles

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
        weekday=pl.col("date").dt.weekday(),
        observed=observed_units(),
    )
    history = pl.concat(
        [
            known.select("shard", *SERIES, "consumer_prices", "unemployment", as_of_date="date"),
            panel.select(_lags()),
            panel.select(statistic.over("series") for statistic in _statistics()),
            _month_quantiles(panel),
            _weekday_means(panel),
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
    """Statistics of one series, in the order of its days."""
    sold = (_OBSERVED > 0).cast(pl.Float32)
    observed_days = _OBSERVED.is_not_null().cum_sum()
    days_at_sale = pl.when(pl.col("units") > 0).then(observed_days).forward_fill()
    return [
        *(_rolling_mean(_OBSERVED, days).alias(f"mean_{days}") for days in WINDOWS),
        *(_OBSERVED.rolling_std(days, min_samples=2).alias(f"std_{days}") for days in DEVIATIONS),
        *(_rolling_mean(sold, days).alias(f"selling_share_{days}") for days in (28, 112)),
        *(
            _OBSERVED.ewm_mean(span=days, ignore_nulls=True).forward_fill().alias(f"weighted_mean_{days}")
            for days in SPANS
        ),
        (observed_days - days_at_sale).alias("zero_run"),
        pl.int_range(pl.len()).alias("days_since_first_sale"),
        _rolling_mean(_OBSERVED.is_not_null().cast(pl.Float32), 28).alias("available_share_28"),
        _rolling_mean(pl.col("on_promotion"), 28).alias("promotion_mean_28"),
        pl.col("price").forward_fill().alias("price_last"),
        *(_rolling_mean(pl.col("price"), days).alias(f"price_mean_{days}") for days in (28, 364)),
        pl.col("price").cum_max().forward_fill().alias("price_max"),
        _rolling_mean(pl.col("temperature"), 7).alias("temperature_mean_7"),
        _rolling_mean(pl.col("precipitation"), 7).alias("precipitation_mean_7"),
    ]


def _lags() -> list[pl.Expr]:
    """Of a whole panel: a shift of all its rows takes a third of the time of one within each series."""
    return [pl.when(pl.col("age") >= days).then(_OBSERVED.shift(days)).alias(f"units_lag_{days}") for days in LAGS]


def _month_quantiles(panel: pl.DataFrame) -> pl.DataFrame:
    median, upper = rolling_quantiles(panel["observed"], panel["age"].to_numpy(), 28, (0.5, 0.9))
    return pl.DataFrame({"median_28": median, "upper_28": upper})


def _rolling_mean(values: pl.Expr, days: int) -> pl.Expr:
    return values.rolling_mean(days, min_samples=1)


def _weekday_means(panel: pl.DataFrame) -> pl.DataFrame:
    # One key of numbers: Polars takes a fifth less time for it than for two columns.
    weekday_of_series = pl.col("series") * 7 + pl.col("weekday").cast(pl.UInt32)
    return panel.select("observed", weekday_of_series=weekday_of_series).select(
        _rolling_mean(_OBSERVED, weeks).over("weekday_of_series").alias(f"weekday_mean_{weeks}") for weeks in WEEKS
    )


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

    def rolling(self, cells: pl.Series, days: int) -> pl.Series:
        """For each row of the panel, the mean of its group's cells over so many days."""
        group = np.repeat(np.arange(self.groups), self.days)
        frame = pl.DataFrame({"group": group, "cell": cells.cast(pl.Float32)})
        return frame.select(_rolling_mean(pl.col("cell"), days).over("group")).to_series().gather(self.cells)


def _where(there: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> pl.Series:
    return pl.select(pl.when(pl.Series(there)).then(pl.Series(values))).to_series()


def _department(known: pl.DataFrame, panel: pl.DataFrame) -> pl.DataFrame:
    """Units of the store's department per day and per item and day, and the price of its items."""
    groups = _Groups.of(known, ["store_id", "department"])
    sums, counts = groups.sums(panel["units"])
    total, per_item = _where(counts > 0, sums), groups.mean(panel["observed"])
    last_price = panel.select(pl.col("price").forward_fill().over("series")).to_series()
    return pl.DataFrame(
        {
            "store_department_price": groups.mean(last_price).gather(groups.cells),
            "store_department_mean_7": groups.rolling(total, 7),
            "store_department_mean_28": groups.rolling(total, 28),
            "department_item_mean_28": groups.rolling(per_item, 28),
        }
    )


def _item_mean(known: pl.DataFrame, panel: pl.DataFrame) -> pl.DataFrame:
    """Units of the item per store and day, averaged over 28 days, of the stores where it was available."""
    groups = _Groups.of(known, ["item_id"])
    return pl.DataFrame({"item_stores_mean_28": groups.rolling(groups.mean(panel["observed"]), 28)})
