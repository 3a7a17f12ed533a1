"""From a raw table's text to typed columns, with every conforming step named and counted.

Here: trimming, reading text as the type that the feed declares, provenance under the names of the clean tables.
Not here: what only one feed needs (`feeds.py`), and whether a row is good (`reasons.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from retail_platform.cleaning.text import (
    has_time_of_day,
    is_decimal_form,
    needs_trimming,
    read_as,
    store_zone,
    trimmed,
)
from retail_platform.cleaning.time_zones import store_time
from retail_platform.contracts.feeds import Feed, FeedColumn
from retail_platform.settings import FeedSettings

ARRIVAL_ORDER = ("ingested_at", "file_id", "row_number")

_MANY_PIECES = 0.01

STORE_ZONE = "time zone of the store"


@dataclass(frozen=True)
class ConformingStep:
    """Something that cleaning did to values, and to how many rows."""

    name: str
    description: str
    rows: int


def text_of(column: str) -> str:
    """Name under which a typed column's trimmed text is kept, for the reason should it be unreadable."""
    return f"{column} as text"


def as_written(column: str) -> str:
    """Name under which a time is kept as its file tells it, where that is not the store's clock."""
    return f"{column} as written"


def in_arrival_order(raw: pl.DataFrame) -> pl.DataFrame:
    """Raw rows file by file as they were taken in, each file in its own order."""
    # The lake gives rows back in pieces of consecutive rows; to put those in order costs a tenth of sorting the rows.
    begins = (pl.col("row_number").diff() != 1) | (pl.col("file_id") != pl.col("file_id").shift())
    pieces = raw.select(*ARRIVAL_ORDER, start=pl.int_range(pl.len()), begins=begins.fill_null(value=True)).filter(
        "begins"
    )
    if pieces.height > raw.height * _MANY_PIECES:
        return raw.sort(ARRIVAL_ORDER)
    # In one piece of memory: over several, Polars 2.1 panics where threads read text at once.
    rows = pl.col("start").shift(-1, fill_value=raw.height) - pl.col("start")
    places = pieces.with_columns(rows=rows).sort(ARRIVAL_ORDER).select("start", "rows")
    return pl.concat([raw.slice(*place) for place in places.iter_rows()], rechunk=True) if places.height > 1 else raw


def conform(
    feed: Feed, raw: pl.DataFrame, form: FeedSettings, store_time_zones: Mapping[str, str]
) -> tuple[pl.DataFrame, list[ConformingStep]]:
    """Raw rows in arrival order with their columns typed, null where the text is missing or cannot be read.

    The frame has the feed's columns, `source_file_id`, `source_row_number`, `partition_date`, the position of the
    raw row as `raw_row`, and the text of each column that is not text itself under `text_of(name)`. Where the feed
    declares a time zone, its times are on the store's clock, and under `as_written(name)` as the file tells them; the
    zone of the store is `STORE_ZONE`.
    """
    typed = [c for c in feed.columns if c.dtype != pl.String]
    changed = raw.select(needs_trimming(pl.col(name)) for name in feed.column_names)
    text = raw.with_columns(trimmed(pl.col(column.name)) for column in changed if column.any())
    frame = text.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("raw_row"),
        pl.col("file_id").alias("source_file_id"),
        pl.col("row_number").alias("source_row_number"),
        "partition_date",
        *(read_as(c.dtype, pl.col(c.name), form).alias(c.name) for c in feed.columns),
        *(pl.col(c.name).alias(text_of(c.name)) for c in typed),
    )
    times = _columns_of_type(feed, pl.Datetime("us"))
    if form.time_zone and times:
        zones = set(store_time_zones.values())
        frame = frame.with_columns(store_zone(pl.col("store_id"), store_time_zones).alias(STORE_ZONE)).with_columns(
            *(pl.col(c.name).alias(as_written(c.name)) for c in times),
            *(store_time(pl.col(c.name), form.time_zone, pl.col(STORE_ZONE), zones).alias(c.name) for c in times),
        )
    if feed.date_column and form.business_date_from:
        frame = frame.with_columns(pl.col(form.business_date_from).dt.date().alias(feed.date_column))
    return frame, _steps(feed, changed, text, form)


def _steps(feed: Feed, changed: pl.DataFrame, text: pl.DataFrame, form: FeedSettings) -> list[ConformingStep]:
    words = "Blanks around a value were removed; a blank value counts as missing"
    steps = [_step("trimmed blanks", words, changed, pl.any_horizontal(pl.all()))]
    whole = _columns_of_type(feed, pl.Int64())
    if whole:
        written_as_decimal = pl.any_horizontal(is_decimal_form(pl.col(c.name), form) for c in whole)
        words = f"A whole number was written with a sign, point or exponent: {_names(whole)}"
        steps.append(_step("decimals read as whole numbers", words, text, written_as_decimal))
    dates = _columns_of_type(feed, pl.Date())
    if dates:
        with_time = pl.any_horizontal(has_time_of_day(pl.col(c.name), form) for c in dates)
        words = f"A date came with a time of day, which was left out: {_names(dates)}"
        steps.append(_step("times of day left out of dates", words, text, with_time))
    return steps


def _step(name: str, description: str, frame: pl.DataFrame, concerns: pl.Expr) -> ConformingStep:
    return ConformingStep(name, description, int(frame.select(concerns.sum()).item() or 0))


def _columns_of_type(feed: Feed, dtype: pl.DataType) -> list[FeedColumn]:
    return [c for c in feed.columns if c.dtype == dtype]


def _names(columns: list[FeedColumn]) -> str:
    return ", ".join(c.name for c in columns)
