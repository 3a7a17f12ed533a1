"""Files that are complete per store and day: of several that have a store's day, which one counts.

Here: the precedence of whole files, store-day by store-day. Not here: the precedence of single rows, which alone
decides where a feed does not declare its files complete (`duplicates.py`).

- The file that arrived last takes the place of the earlier ones, if it has a good row of the store-day and no more
  of its rows there are rejected than the reject budget allows. What it does not repeat is gone, and so is what was
  rejected of the earlier files.
- A later file that is worse than that replaces nothing: its broken rows may be the very lines that seem to be missing.
  Its good rows are rejected as well, since half of one file beside half of another is a day that nobody reported.
- A row whose store or day cannot be read is of no store-day: it stays rejected, and replaces nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

HELD_BACK = "more rows of this store and day are rejected than the reject budget allows; the earlier file stays"
"""Why a good row is rejected that would else have replaced rows of an earlier file."""

_STORE_DAY = ["store_id", "partition_date"]
_FILE = [*_STORE_DAY, "source_file_id"]


@dataclass(frozen=True)
class WholeDays:
    """All rows, each once: `counting` are the good ones of the file that counts; `rejected` has `reasons`; `replaced`
    are the good and broken rows of earlier files, with `kept_file_id`, and `readable`, which is false for the broken.
    """

    counting: pl.DataFrame
    rejected: pl.DataFrame
    replaced: pl.DataFrame


def newest_store_days(
    good: pl.DataFrame, broken: pl.DataFrame, date_column: str, *, waived: pl.DataFrame, budget: float
) -> WholeDays:
    """Keep the rows of one file per store and day. `good` and `broken` (which has `reasons`) are conformed rows with
    their `raw_row`, by which later files have greater numbers; `waived` (file_id, row_number) are accepted as lost.
    """
    of_store_day = pl.col("store_id").is_not_null() & (pl.col(date_column) == pl.col("partition_date"))
    broken = broken.with_columns(of_store_day.fill_null(value=False).alias("known"))
    standing = _standing(_files(good, broken.filter("known"), waived), budget)
    if standing.is_empty():
        nothing = good.clear().with_columns(kept_file_id=pl.lit(None, pl.String), readable=pl.lit(None, pl.Boolean))
        return WholeDays(good, broken.drop("known"), nothing)
    good = good.join(standing, on=_STORE_DAY, how="left", maintain_order="left")
    broken = broken.join(standing, on=_STORE_DAY, how="left", maintain_order="left")
    # In arrival order the rows of a file follow one another.
    earlier = (pl.col("raw_row") < pl.col("kept_from")).fill_null(value=False)
    other = (pl.col("source_file_id") != pl.col("kept_file_id")).fill_null(value=False)
    held_back = good.filter(other & ~earlier).with_columns(reasons=pl.lit([HELD_BACK]))
    rejected = broken.filter(~(pl.col("known") & earlier)).select(held_back.columns)
    replaced = broken.filter(pl.col("known") & earlier).select(good.columns)
    return WholeDays(
        counting=good.filter(~other),
        rejected=pl.concat([rejected, held_back]),
        replaced=pl.concat(
            [
                good.filter(earlier).with_columns(readable=pl.lit(True)),
                replaced.with_columns(readable=pl.lit(False)),
            ]
        ),
    )


def judge_replaced(
    replaced: pl.DataFrame, kept: pl.DataFrame, grain: Sequence[str], values: Sequence[str]
) -> pl.DataFrame:
    """`replaced` with `kept_row_number` and `kind`: what the file that counts has in the place of each row. `kept` has
    one row per grain.

    Where it has a row of the same grain, that is `repeated` or `superseded`; where it has none, the row is `withdrawn`
    and there is no number. A broken row is `withdrawn` as well: without the declaration it would be rejected, and
    `orchestration/corrections.py` looks for this kind.
    """
    new = {value: f"{value} kept" for value in values}
    counterparts = kept.select(
        *grain, *(pl.col(value).alias(name) for value, name in new.items()), kept_row_number="source_row_number"
    )
    same = pl.all_horizontal(pl.col(value).eq_missing(pl.col(name)) for value, name in new.items())
    kind = (
        pl.when(pl.col("kept_row_number").is_null() | ~pl.col("readable"))
        .then(pl.lit("withdrawn"))
        .when(same)
        .then(pl.lit("repeated"))
        .otherwise(pl.lit("superseded"))
    )
    return replaced.join(counterparts, on=grain, how="left", nulls_equal=True).with_columns(kind=kind)


def _files(good: pl.DataFrame, broken: pl.DataFrame, waived: pl.DataFrame) -> pl.DataFrame:
    """The files of each store-day in arrival order: rows, good, rejected (and not waived), and the first raw row."""
    lost = waived.select(source_file_id="file_id", source_row_number="row_number", waived=pl.lit(True))
    broken = broken.join(lost, on=["source_file_id", "source_row_number"], how="left")
    rows = pl.concat(
        [
            good.select(*_FILE, "raw_row", good=pl.lit(True), rejected=pl.lit(False)),
            broken.select(*_FILE, "raw_row", good=pl.lit(False), rejected=pl.col("waived").is_null()),
        ]
    )
    counts = rows.group_by(_FILE).agg(pl.len().alias("rows"), pl.col("good", "rejected").sum(), pl.col("raw_row").min())
    return counts.sort("raw_row")


def _standing(files: pl.DataFrame, budget: float) -> pl.DataFrame:
    """The file that counts, `kept_file_id`, and its first raw row, `kept_from`, for each store-day that has a good row
    and more than one file.
    """
    shared = files.filter(pl.len().over(_STORE_DAY) > 1).filter(pl.col("good") > 0)
    within = shared.filter(pl.col("rejected") <= budget * pl.col("rows"))
    newest = within.group_by(_STORE_DAY, maintain_order=True).last()
    # Where no file is within the budget, none may replace the first.
    first = shared.join(newest, on=_STORE_DAY, how="anti").group_by(_STORE_DAY, maintain_order=True).first()
    return pl.concat([newest, first]).select(*_STORE_DAY, kept_file_id="source_file_id", kept_from="raw_row")
