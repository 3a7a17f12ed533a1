"""What only one feed needs to become its clean table.

Here: receipt positions and pseudonyms of sales, the region of calendar events. The other feeds need nothing but
typed columns (`conform.py`).
"""

import polars as pl

from retail_platform.cleaning.conform import ConformingStep, text_of
from retail_platform.cleaning.pseudonyms import pseudonyms
from retail_platform.contracts.feeds import Feed

EVERYWHERE = "*"
"""Region of an event that concerns every region."""


def complete(feed: Feed, frame: pl.DataFrame, customer_key: bytes | None) -> tuple[pl.DataFrame, list[ConformingStep]]:
    """Conformed rows with the columns that the feed's clean table has besides those of its files."""
    match feed.name:
        case "pos_sales":
            return _complete_sales(frame, customer_key)
        case "calendar_events":
            return _complete_calendar(frame)
        case _:
            return frame, []


def _complete_sales(frame: pl.DataFrame, customer_key: bytes | None) -> tuple[pl.DataFrame, list[ConformingStep]]:
    unnumbered = pl.col("transaction_id").is_not_null() & pl.col(text_of("line_number")).is_null()
    # By partition as well, so that a day cleaned alone and within a range gets the same numbers.
    receipt = ["source_file_id", "partition_date", "store_id", "transaction_id"]
    position = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over(receipt)
    numbered = int(frame.select(unnumbered.sum()).item())
    if numbered:
        frame = frame.with_columns(pl.when(unnumbered).then(position).otherwise("line_number").alias("line_number"))
    customers = frame["customer_id"]
    return frame.with_columns(pseudonyms(customers, customer_key).alias("customer_pseudonym")), [
        ConformingStep(
            "line numbers from file order",
            "A receipt line without a number got its place among its receipt's",
            numbered,
        ),
        ConformingStep(
            "customer ids pseudonymised", "A customer id became its keyed hash", len(customers) - customers.null_count()
        ),
    ]


def _complete_calendar(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[ConformingStep]]:
    everywhere = frame["region"].null_count()
    step = ConformingStep(
        "empty regions read as everywhere", f"An event without a region got {EVERYWHERE!r}", everywhere
    )
    return frame.with_columns(pl.col("region").fill_null(EVERYWHERE)), [step]
