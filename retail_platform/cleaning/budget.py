"""How many rejected rows a day may have before it is better not written at all.

Here: the judgement of days by the share of their rejected rows, and the commonest reasons in words. Not here: what
becomes of a day over its budget (`orchestration/`), and why a row is rejected (`reasons.py`).
"""

from collections.abc import Mapping

import polars as pl

from retail_platform.cleaning.reasons import kind_of

NOTHING_WAIVED = pl.DataFrame(schema={"file_id": pl.String, "row_number": pl.Int64})

_SHOWN_REASONS = 5


def days_over_budget(
    raw: pl.DataFrame, rejected: pl.DataFrame, waivers: pl.DataFrame, *, budget: float, tolerated: int, by_day: bool
) -> pl.DataFrame:
    """Days of which more than `tolerated` rows and more than the share `budget` are rejected and not waived.

    One row per day: partition_date, arrived, rejected (not waived). A feed that is not cut into days is judged as a
    whole, under the date null. `raw` and `rejected` have whole partitions of one feed; `waivers` (file_id, row_number)
    names the rows of the feed that somebody accepted as lost.
    """
    day = pl.col("partition_date") if by_day else pl.lit(None, pl.Date).alias("partition_date")
    open_rows = rejected.select("file_id", "row_number", day).join(waivers, on=["file_id", "row_number"], how="anti")
    counts = open_rows.group_by("partition_date").len("rejected").filter(pl.col("rejected") > tolerated)
    if counts.is_empty():
        return counts.select("partition_date", pl.lit(0, pl.Int64).alias("arrived"), pl.col("rejected").cast(pl.Int64))
    arrived = raw.select("file_id", day).group_by("partition_date").len("arrived")
    return (
        counts.join(arrived, on="partition_date", nulls_equal=True)
        .select("partition_date", pl.col("arrived", "rejected").cast(pl.Int64))
        .filter(pl.col("rejected") > budget * pl.col("arrived"))
        .sort("partition_date")
    )


def commonest_reasons(rejected: pl.DataFrame, file_names: Mapping[str, str]) -> list[str]:
    """The reasons of rejected rows, commonest first, each with its number of rows and the first row as an example."""
    kinds = (
        rejected.select("file_id", "row_number", "reasons")
        .explode("reasons")
        .with_columns(kind_of(pl.col("reasons")).alias("kind"))
        .group_by("kind", maintain_order=True)
        .agg(pl.len().alias("rows"), pl.col("file_id", "row_number", "reasons").first())
        .sort("rows", "kind", descending=[True, False])
    )
    return [
        f"{row['rows']:,} rows: {row['kind']}, for example row {row['row_number']} of "
        f"{file_names.get(row['file_id'], row['file_id'][:12])} ({row['reasons']})"
        for row in kinds.head(_SHOWN_REASONS).iter_rows(named=True)
    ]
