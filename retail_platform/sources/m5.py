"""The M5 data set: daily unit sales of ten Walmart stores, as landing files.

Here: the translation of the published CSV files, or of the same tables as Parquet, into the feeds of the landing
zone. Not here: the competition's evaluation.

Sales are daily totals per store and item, so they have no receipt; a day without a sale is no line, and whether
the item was on sale that day follows from its price. In our hierarchy the M5 department (FOODS_1) is the category
of an item and the M5 category (FOODS) its department. M5 states no amounts, stock or weather.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import polars as pl

from retail_platform.sources.landing import LandingError, LoadReport, write_landing_files

PARQUET_FILES = ("sales_daily.parquet", "sell_prices.parquet", "calendar.parquet")
CSV_FILES = ("sell_prices.csv", "calendar.csv")
# The evaluation file holds the validation file and 28 days more.
CSV_SALES = ("sales_train_evaluation.csv", "sales_train_validation.csv")

SERIES = ["store_id", "item_id", "dept_id", "cat_id", "state_id"]
TIME_ZONES = {"CA": "America/Los_Angeles", "TX": "America/Chicago", "WI": "America/Chicago"}


def load_m5(landing: Path, source: Path) -> LoadReport:
    """Write M5 as landing files, from whichever form lies in the folder `source`.

    Parquet: sales_daily (one row per store, item and date, column `sales`), sell_prices, calendar. CSV: as
    published, sales_train_evaluation or else sales_train_validation, sell_prices, calendar. Both forms of the same
    data give the same landing files. Raises `LandingError` naming every missing file, or the days and weeks of
    sales and prices that the calendar lacks.
    """
    form = _form(source)
    calendar = _calendar(source, form)
    series, sales_by_year, last_date = _parquet_sales(source) if form == "parquet" else _csv_sales(source, calendar)
    prices = _prices(_scan(source / f"sell_prices.{form}"), calendar)
    written = write_landing_files(
        landing,
        [
            ("items", "m5.csv", _items(series)),
            ("stores", "m5.csv", _stores(series)),
            ("calendar_events", "m5.csv", _calendar_events(calendar, series)),
            ("prices", "m5.parquet", prices),
        ],
    )
    written += write_landing_files(
        landing, (("pos_sales", f"m5-{year}.parquet", sales) for year, sales in sales_by_year)
    )
    lines = sum(file.rows for file in written if file.feed == "pos_sales")
    last_price_day: date = prices.select(pl.col("valid_to").max()).item()
    notes = (
        (
            f"Real: {lines:,} daily totals of {series.height:,} store and item pairs up to {last_date}; days without "
            "a sale are no line."
        ),
        (
            f"Real: {prices.height:,} price periods from weekly prices, equal prices of successive weeks being one "
            f"period; the last one ends on {last_price_day}."
        ),
        (
            "Real: events, and SNAP days as pay days of the state. M5 has no stock, weather, economy or sales amounts, "
            "and none are made up."
        ),
    )
    return LoadReport(written, notes)


def _form(source: Path) -> str:
    missing_parquet = [name for name in PARQUET_FILES if not (source / name).is_file()]
    if not missing_parquet:
        return "parquet"
    missing_csv = [name for name in CSV_FILES if not (source / name).is_file()]
    if not any((source / name).is_file() for name in CSV_SALES):
        missing_csv.append(" or ".join(CSV_SALES))
    if not missing_csv:
        return "csv"
    raise LandingError(
        f"M5 is not complete in {source}: as published it lacks {', '.join(missing_csv)}; as Parquet it lacks "
        f"{', '.join(missing_parquet)}. Put the files of one form there, or name the folder that holds them"
    )


def _scan(path: Path) -> pl.LazyFrame:
    return pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path)


def _calendar(source: Path, form: str) -> pl.DataFrame:
    day = pl.col("date").cast(pl.String).str.to_date("%Y-%m-%d")
    return _scan(source / f"calendar.{form}").with_columns(day).sort("date").collect()


def _parquet_sales(source: Path) -> tuple[pl.DataFrame, Iterator[tuple[int, pl.DataFrame]], date]:
    """The series, their sales lines year by year, and the last day for which sales are known."""
    sales = pl.scan_parquet(source / "sales_daily.parquet")
    years = sales.select(pl.col("date").dt.year().unique().sort()).collect()["date"]
    by_year = (
        (year, _lines(sales.filter(pl.col("date").dt.year() == year).rename({"sales": "units"}))) for year in years
    )
    last_date: date = sales.select(pl.col("date").max()).collect().item()
    return sales.select(SERIES).unique().sort(SERIES).collect(), by_year, last_date


def _csv_sales(source: Path, calendar: pl.DataFrame) -> tuple[pl.DataFrame, Iterator[tuple[int, pl.DataFrame]], date]:
    """As `_parquet_sales`; in the published file each day is a column, d_1 being the first day of the calendar."""
    path = next(source / name for name in CSV_SALES if (source / name).is_file())
    days = [name for name in pl.scan_csv(path).collect_schema().names() if name.startswith("d_")]
    unknown = sorted(set(days) - set(calendar["d"]))
    if unknown:
        raise LandingError(f"{path.name} has days that calendar.csv lacks: {', '.join(unknown)}")
    wide = pl.read_csv(path, schema_overrides=dict.fromkeys(days, pl.Int32))
    known_days = calendar.select("d", "date").filter(pl.col("d").is_in(days))

    def lines_of(days_of_year: pl.DataFrame) -> pl.DataFrame:
        columns = days_of_year["d"].to_list()
        long = wide.lazy().unpivot(columns, index=["store_id", "item_id"], variable_name="d", value_name="units")
        return _lines(long.filter(pl.col("units") > 0).join(days_of_year.lazy(), on="d"))

    by_year = (
        (year, lines_of(known_days.filter(pl.col("date").dt.year() == year)))
        for year in known_days["date"].dt.year().unique().sort()
    )
    return wide.select(SERIES).unique().sort(SERIES), by_year, known_days["date"][-1]


def _lines(daily: pl.LazyFrame) -> pl.DataFrame:
    return (
        daily.filter(pl.col("units") > 0)
        .select(
            pl.col("date").alias("business_date"),
            "store_id",
            "item_id",
            pl.col("units").cast(pl.Float64).alias("quantity"),
        )
        .sort("business_date", "store_id", "item_id")
        .collect()
    )


def _items(series: pl.DataFrame) -> pl.DataFrame:
    return (
        series.select("item_id", pl.col("dept_id").alias("category"), pl.col("cat_id").alias("department"))
        .unique()
        .sort("item_id")
    )


def _stores(series: pl.DataFrame) -> pl.DataFrame:
    return (
        series.select("store_id", pl.col("state_id").alias("region"))
        .unique()
        .with_columns(pl.col("region").replace_strict(TIME_ZONES, default=None).alias("time_zone"))
        .sort("store_id")
    )


def _prices(weekly: pl.LazyFrame, calendar: pl.DataFrame) -> pl.DataFrame:
    """Price periods: successive weeks (Saturday to Friday) with the same price are one."""
    # Polars counts Monday as 1, so Saturday, 6, is day 0 of its M5 week.
    saturday = pl.col("date") - pl.duration(days=(pl.col("date").dt.weekday() + 1) % 7)
    weeks = calendar.select("wm_yr_wk", saturday.alias("valid_from")).unique()
    series = ["store_id", "item_id"]
    unknown = weekly.join(weeks.lazy(), on="wm_yr_wk", how="anti").select(pl.col("wm_yr_wk").unique().sort()).collect()
    if unknown.height:
        raise LandingError(f"prices name weeks that the calendar lacks: {', '.join(map(str, unknown['wm_yr_wk']))}")
    continues = pl.all_horizontal(pl.col(c) == pl.col(c).shift(1) for c in [*series, "sell_price"]) & (
        pl.col("valid_from").diff() == pl.duration(days=7)
    )
    return (
        weekly.join(weeks.lazy(), on="wm_yr_wk")
        .sort(*series, "valid_from")
        .with_columns((~continues).fill_null(value=True).cum_sum().alias("period"))
        .group_by("period", maintain_order=True)
        .agg(
            pl.col(series).first(),
            pl.col("valid_from").first(),
            pl.col("valid_from").last().dt.offset_by("6d").alias("valid_to"),
            pl.col("sell_price").first().alias("price"),
        )
        .drop("period")
        .collect()
    )


def _calendar_events(calendar: pl.DataFrame, series: pl.DataFrame) -> pl.DataFrame:
    """Events of everywhere (no region), and the days on which SNAP benefits may be spent as pay days of the state."""
    events = [
        calendar.select(
            "date", pl.col(f"event_name_{n}").alias("event_name"), pl.col(f"event_type_{n}").alias("event_type")
        )
        .drop_nulls("event_name")
        .with_columns(pl.col("event_type").str.to_lowercase(), pl.lit(None, pl.String).alias("region"))
        for n in (1, 2)
    ]
    pay_days = [
        calendar.filter(pl.col(f"snap_{state}") == 1).select(
            "date",
            pl.lit("SNAP").alias("event_name"),
            pl.lit("payday").alias("event_type"),
            pl.lit(state).alias("region"),
        )
        for state in series["state_id"].unique().sort()
        if f"snap_{state}" in calendar.columns
    ]
    return pl.concat([*events, *pay_days]).sort("date", "region", "event_name", nulls_last=False)
