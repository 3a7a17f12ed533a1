"""Rows that name the same thing: which one counts, and what becomes of the others.

Here: the precedence of rows of one grain. Not here: anything about single rows (`reasons.py`).

- Within one file the first row counts. A row that repeats its values is a duplicate; one with other values
  contradicts it, and as no order between them is promised, it is rejected.
- Of several files the one that arrived last counts: it corrects the earlier ones, whose rows are duplicates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Judged:
    """`kept` has one row per grain and is sorted by it; `duplicates` has `kept_file_id`, `kept_row_number` and `kind`
    besides; `contradicting` has `reasons`. Together they are all rows.
    """

    kept: pl.DataFrame
    duplicates: pl.DataFrame
    contradicting: pl.DataFrame


def judge_duplicates(frame: pl.DataFrame, grain: Sequence[str], values: Sequence[str]) -> Judged:
    """Set the rows apart that share their `grain` with another. `frame` must be in arrival order.

    Null is a value like any other in the grain: two daily totals without a receipt name the same thing.
    """
    # Rows of one grain come to stand together, still in arrival order.
    frame = frame.sort(grain, maintain_order=True)
    as_before = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in grain)
    as_before = as_before & (pl.int_range(pl.len()) > 0)
    shared = frame.select(shared=as_before | as_before.shift(-1, fill_value=False))["shared"]
    places = shared.arg_true()
    rivals = frame[places].with_columns(
        places.alias("place"),
        _same_as(values, pl.Expr.first, [*grain, "source_file_id"]).alias("as_first_of_file"),
        pl.col("source_row_number").first().over([*grain, "source_file_id"]).alias("first_row_of_file"),
    )
    contradicting = rivals.filter(~pl.col("as_first_of_file")).with_columns(_contradiction(grain).alias("reasons"))
    # In arrival order the last row of a grain is of the file that counts, and equal to that file's first row.
    agreeing = rivals.filter("as_first_of_file").with_columns(
        pl.col("source_file_id").last().over(grain).alias("kept_file_id"),
        pl.col("first_row_of_file").last().over(grain).alias("kept_row_number"),
        pl.when(_same_as(values, pl.Expr.last, grain))
        .then(pl.lit("repeated"))
        .otherwise(pl.lit("superseded"))
        .alias("kind"),
    )
    counts = (pl.col("source_file_id") == pl.col("kept_file_id")) & (
        pl.col("source_row_number") == pl.col("kept_row_number")
    )
    out = rivals.join(agreeing.filter(counts).select("place"), on="place", how="anti")["place"]
    kept = frame if out.is_empty() else frame.filter(pl.repeat(True, frame.height, eager=True).scatter(out, False))
    return Judged(kept, agreeing.filter(~counts), contradicting)


def _same_as(values: Sequence[str], pick: Callable[[pl.Expr], pl.Expr], group: Sequence[str]) -> pl.Expr:
    return pl.all_horizontal(pl.col(v).eq_missing(pick(pl.col(v)).over(group)) for v in values)


def _contradiction(grain: Sequence[str]) -> pl.Expr:
    return pl.concat_list(
        pl.format(
            "row {} of the same file has the same {} and other values; the first one counts",
            "first_row_of_file",
            pl.lit(", ".join(grain)),
        )
    )
