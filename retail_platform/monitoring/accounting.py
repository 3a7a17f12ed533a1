"""Accounting of rows: nothing that arrived is lost on the way, and nothing appears from nowhere.

Here: the identity arrived = clean + rejected + duplicate, per landing file of a feed. Not here: counting the rows
of the tables.
"""

import polars as pl

COUNTS = ("arrived", "clean", "rejected", "duplicate")


def row_identity(
    raw_counts: pl.DataFrame,
    clean_counts: pl.DataFrame,
    rejected_counts: pl.DataFrame,
    duplicate_counts: pl.DataFrame,
) -> pl.DataFrame:
    """Rows of one feed by file: file_id, arrived, clean, rejected, duplicate, and difference.

    Each input has one row per file, with `file_id` and `rows`; a file that an input does not name has no rows there.
    `difference` is what arrived and is nowhere; below 0, what is there and never arrived or is there twice.
    """
    inputs = zip(COUNTS, (raw_counts, clean_counts, rejected_counts, duplicate_counts), strict=True)
    long = pl.concat(
        counts.select("file_id", pl.col("rows").cast(pl.Int64), pl.lit(name).alias("place")) for name, counts in inputs
    )
    return (
        long.group_by("file_id")
        .agg(pl.col("rows").filter(pl.col("place") == name).sum().alias(name) for name in COUNTS)
        .with_columns(difference=pl.col("arrived") - pl.col("clean") - pl.col("rejected") - pl.col("duplicate"))
        .sort("file_id")
    )


def identity_holds(identity: pl.DataFrame) -> bool:
    """Whether every file's rows are accounted for."""
    return bool((identity["difference"] == 0).all())


def identity_text(identity: pl.DataFrame, feed: str) -> str:
    """The accounts of a feed in words; where they do not balance, the files concerned, worst first."""
    totals = {name: int(identity[name].sum()) for name in COUNTS}
    text = (
        f"{feed}: {totals['arrived']:,} rows of {len(identity):,} files arrived, "
        f"{totals['clean']:,} are clean, {totals['rejected']:,} rejected, {totals['duplicate']:,} duplicates"
    )
    wrong = identity.filter(pl.col("difference") != 0).sort(pl.col("difference").abs(), descending=True)
    if wrong.is_empty():
        return f"{text}; every row is accounted for"
    files = [
        f"file {file_id[:12]}: {abs(difference):,} rows {'missing' if difference > 0 else 'too many'}"
        for file_id, difference in wrong.head(5).select("file_id", "difference").iter_rows()
    ]
    more = f" and {len(wrong) - 5:,} more files" if len(wrong) > 5 else ""
    return f"{text}; NOT accounted for: {'; '.join(files)}{more}. Clean the days that these files touch again"
