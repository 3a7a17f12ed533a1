"""Drift of the demand panel: whether the latest weeks differ from the weeks that they should resemble.

Here: which weeks and which columns are compared, and what the distances mean. Not here: how a distance is measured
and drawn (`evidently_report.py`).

A monitor that cries at every change of season is soon ignored. So the latest weeks are compared with the same weeks
of last year, and only series that lived through both windows are, for a new assortment is not drift. Columns that
time alone moves (calendar, price index, unemployment) are not measured. Weather is measured and not counted: one
warm month lies far from the same month of another year, and training again would not mend it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.settings import DriftSettings

DEMAND_TABLE = "features.demand"
SERIES = ["store_id", "item_id"]
WHOLE_TABLE = "*"

NUMBER_METRIC = "normed_wasserstein"
CATEGORY_METRIC = "jensen_shannon"
SHARE_METRIC = "share_of_drifted_columns"

_ON_SALE = pl.col("listed") & pl.col("in_stock")
_PROMOTED = pl.col("on_promotion") > 0

NUMBERS: dict[str, pl.Expr] = {
    # Promotions are planned and shelves run empty: both move units without any change in what customers want.
    "units_on_regular_days": pl.when(_ON_SALE & ~_PROMOTED).then("units"),
    "units_on_promoted_days": pl.when(_ON_SALE & _PROMOTED).then("units"),
    "price": pl.col("price"),
    "on_promotion": pl.col("on_promotion"),
    "promotion_depth": pl.col("promotion_depth"),
    "temperature": pl.col("temperature"),
    "precipitation": pl.col("precipitation"),
}
CATEGORIES: dict[str, pl.Expr] = {
    "listed": pl.col("listed").cast(pl.String),
    "in_stock": pl.col("in_stock").cast(pl.String),
}
NOT_COUNTED = ("temperature", "precipitation")

MINIMUM_VALUES = 250
"""Two samples of one and the same column lie about 1 / sqrt(values) apart: with fewer, chance looks like drift."""

_YEAR = timedelta(weeks=52)
_MARGIN = timedelta(weeks=2)


@dataclass(frozen=True)
class DriftWindows:
    """Current and reference days, both inclusive and both of whole weeks."""

    current_start: date
    current_end: date
    reference_start: date
    reference_end: date


@dataclass(frozen=True)
class DriftSamples:
    """What is compared: one row per sampled series and day, with the columns of `NUMBERS` and `CATEGORIES` that can
    be measured. `skipped` says of every other column why it cannot; `series` counts those compared, in words.
    """

    reference: pl.DataFrame
    current: pl.DataFrame
    skipped: dict[str, str]
    series: str

    @property
    def numbers(self) -> list[str]:
        return [name for name in NUMBERS if name not in self.skipped]

    @property
    def categories(self) -> list[str]:
        return [name for name in CATEGORIES if name not in self.skipped]


def drift_windows(first_day: date, last_known_day: date, settings: DriftSettings) -> DriftWindows | None:
    """The windows to compare, given the first day of the panel and the last whose sales are known.

    Current are the last `window_days`, in whole weeks. Reference are the same weeks of last year (52 weeks before,
    so that weekdays agree) and two weeks to either side; where the panel does not reach so far back, as many weeks
    directly before. None where it is too short even for that.
    """
    weeks = timedelta(weeks=settings.window_days // 7)
    current_start, current_end = last_known_day - weeks + timedelta(days=1), last_known_day
    last_year = DriftWindows(current_start, current_end, current_start - _YEAR - _MARGIN, current_end - _YEAR + _MARGIN)
    directly_before = DriftWindows(current_start, current_end, current_start - weeks, current_end - weeks)
    for windows in (last_year, directly_before):
        if windows.reference_start >= first_day and windows.reference_end < current_start:
            return windows
    return None


def drift_samples(demand: pl.DataFrame, windows: DriftWindows, settings: DriftSettings) -> DriftSamples:
    """Equal samples of both windows from the demand panel (features.demand; days outside the windows are ignored).

    At most `sample_rows` rows per window, drawn with the seed and without regard to the order of the rows: distances
    do not need more, and the report stays small. A column is skipped where a window has too few values of it or both
    hold a single same value.
    """
    reference = demand.filter(pl.col("date").is_between(windows.reference_start, windows.reference_end))
    current = demand.filter(pl.col("date").is_between(windows.current_start, windows.current_end))
    survivors = _complete(reference, windows.reference_start, windows.reference_end).join(
        _complete(current, windows.current_start, windows.current_end), on=SERIES
    )
    sampled = [_sample(frame.join(survivors, on=SERIES, how="semi"), settings) for frame in (reference, current)]
    skipped = {
        name: reason
        for name in [*NUMBERS, *CATEGORIES]
        if (reason := _not_measurable(sampled[0][name], sampled[1][name]))
    }
    known = current.select(SERIES).n_unique()
    return DriftSamples(
        reference=sampled[0].drop(list(skipped)),
        current=sampled[1].drop(list(skipped)),
        skipped=skipped,
        series=f"{len(survivors)} of {known} series lived through both windows",
    )


def _complete(window: pl.DataFrame, start: date, end: date) -> pl.DataFrame:
    """The series that have every day of the window."""
    days = (end - start).days + 1
    return window.group_by(SERIES).len("days").filter(pl.col("days") == days).select(SERIES)


def _sample(window: pl.DataFrame, settings: DriftSettings) -> pl.DataFrame:
    rows = window.sort(*SERIES, "date").sample(min(len(window), settings.sample_rows), seed=settings.seed)
    return rows.select(**NUMBERS, **CATEGORIES)


def _not_measurable(reference: pl.Series, current: pl.Series) -> str | None:
    """Why two samples of a column cannot be compared; None if they can."""
    counts = {"reference": reference.count(), "current": current.count()}
    few = [f"{count} values in the {name} window" for name, count in counts.items() if count < MINIMUM_VALUES]
    if few:
        return f"only {' and '.join(few)}, {MINIMUM_VALUES} are needed"
    values = pl.concat([reference, current]).drop_nulls()
    return f"always {values[0]} in both windows" if values.n_unique() == 1 else None


def drift_rows(
    samples: DriftSamples,
    distances: Mapping[str, float],
    windows: DriftWindows,
    settings: DriftSettings,
    *,
    run_id: str,
    measured_at: datetime,
) -> pl.DataFrame:
    """One measurement of the demand panel (monitoring.data_drift): a row per column, and one for the whole table.

    `distances` holds the distance of every column that the samples hold; raises ValueError where one is missing. The
    table has drifted when at least `share_of_columns` of the measured and counted columns have.
    """
    missing = [name for name in [*samples.numbers, *samples.categories] if name not in distances]
    if missing:
        raise ValueError(f"no distance was measured for {', '.join(missing)} of {DEMAND_TABLE}")
    columns = [
        {
            "column_name": name,
            "metric": NUMBER_METRIC if name in NUMBERS else CATEGORY_METRIC,
            "value": None if name in samples.skipped else distances[name],
            "threshold": settings.distance_threshold,
            "drifted": name not in samples.skipped and distances[name] >= settings.distance_threshold,
            "note": samples.skipped.get(name, "measured, not counted" if name in NOT_COUNTED else None),
        }
        for name in [*NUMBERS, *CATEGORIES]
    ]
    counted = [c["drifted"] for c in columns if c["value"] is not None and c["column_name"] not in NOT_COUNTED]
    share = sum(map(bool, counted)) / len(counted) if counted else None
    whole = {
        "column_name": WHOLE_TABLE,
        "metric": SHARE_METRIC,
        "value": share,
        "threshold": settings.share_of_columns,
        "drifted": share is not None and share >= settings.share_of_columns,
        "note": samples.series,
    }
    facts = {
        "run_id": run_id,
        "table_name": DEMAND_TABLE,
        "reference_start": windows.reference_start,
        "reference_end": windows.reference_end,
        "current_start": windows.current_start,
        "current_end": windows.current_end,
        "measured_at": measured_at,
    }
    return pl.DataFrame([c | facts for c in [*columns, whole]], schema=TABLES["monitoring.data_drift"].polars_schema)


def has_drifted(measurement: pl.DataFrame) -> bool:
    """Whether one measurement (`drift_rows`) found that the table as a whole has drifted."""
    return bool(measurement.filter(pl.col("column_name") == WHOLE_TABLE)["drifted"].any())


def drift_holds(drift_table: pl.DataFrame, settings: DriftSettings) -> bool:
    """Whether the demand panel drifted in each of the last `persistence` measurements (monitoring.data_drift).

    Measuring the same days again is no further measurement; the latest of them counts.
    """
    latest = (
        drift_table.filter(pl.col("table_name") == DEMAND_TABLE, pl.col("column_name") == WHOLE_TABLE)
        .sort("current_end", "measured_at")
        .unique("current_end", keep="last", maintain_order=True)
        .tail(settings.persistence)
    )
    return len(latest) == settings.persistence and bool(latest["drifted"].all())
