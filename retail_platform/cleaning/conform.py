"""From a raw table's text to typed columns, with every conforming step named and counted.

Here: trimming, reading text as the type that the feed declares, provenance under the names of the clean tables.
Not here: what only one feed needs (`feeds.py`), and whether a row is good (`reasons.py`).
"""

from dataclasses import dataclass

import polars as pl

from retail_platform.cleaning.text import has_time_of_day, is_decimal_form, read_as, trimmed
from retail_platform.contracts.feeds import Feed, FeedColumn

ARRIVAL_ORDER = ("ingested_at", "file_id", "row_number")


@dataclass(frozen=True)
class ConformingStep:
    """Something that cleaning did to values, and to how many rows."""

    name: str
    description: str
    rows: int


def text_of(column: str) -> str:
    """Name under which a typed column's trimmed text is kept, for the reason should it be unreadable."""
    return f"{column} as text"


def in_arrival_order(raw: pl.DataFrame) -> pl.DataFrame:
    """Raw rows file by file as they were taken in, each file in its own order."""
    return raw.sort(ARRIVAL_ORDER)


def conform(feed: Feed, raw: pl.DataFrame) -> tuple[pl.DataFrame, list[ConformingStep]]:
    """Raw rows in arrival order with their columns typed, null where the text is missing or cannot be read.

    The frame has the feed's columns, `source_file_id`, `source_row_number`, `partition_date`, the position of the
    raw row as `raw_row`, and the text of each column that is not text itself under `text_of(name)`.
    """
    typed = [c for c in feed.columns if c.dtype != pl.String]
    text = raw.with_columns(trimmed(pl.col(name)) for name in feed.column_names)
    frame = text.select(
        pl.int_range(pl.len(), dtype=pl.Int64).alias("raw_row"),
        pl.col("file_id").alias("source_file_id"),
        pl.col("row_number").alias("source_row_number"),
        "partition_date",
        *(read_as(c.dtype, pl.col(c.name)).alias(c.name) for c in feed.columns),
        *(pl.col(c.name).alias(text_of(c.name)) for c in typed),
    )
    return frame, _steps(feed, raw, text)


def _steps(feed: Feed, raw: pl.DataFrame, text: pl.DataFrame) -> list[ConformingStep]:
    changed = pl.any_horizontal(raw[name].ne_missing(text[name]) for name in feed.column_names)
    steps = [
        _step("trimmed blanks", "Blanks around a value were removed; a blank value counts as missing", raw, changed)
    ]
    whole = _columns_of_type(feed, pl.Int64())
    if whole:
        written_as_decimal = pl.any_horizontal(is_decimal_form(pl.col(c.name)) for c in whole)
        words = f"A whole number was written with a sign, point or exponent: {_names(whole)}"
        steps.append(_step("decimals read as whole numbers", words, text, written_as_decimal))
    dates = _columns_of_type(feed, pl.Date())
    if dates:
        with_time = pl.any_horizontal(has_time_of_day(pl.col(c.name)) for c in dates)
        words = f"A date came with a time of day, which was left out: {_names(dates)}"
        steps.append(_step("times of day left out of dates", words, text, with_time))
    return steps


def _step(name: str, description: str, frame: pl.DataFrame, concerns: pl.Expr) -> ConformingStep:
    return ConformingStep(name, description, int(frame.select(concerns.sum()).item() or 0))


def _columns_of_type(feed: Feed, dtype: pl.DataType) -> list[FeedColumn]:
    return [c for c in feed.columns if c.dtype == dtype]


def _names(columns: list[FeedColumn]) -> str:
    return ", ".join(c.name for c in columns)
