"""Why a row is rejected: every promise that it breaks, in words.

Here: promises as pairs of expressions, and the split of a frame into the rows that keep all of them and those that
do not. Not here: duplicates, which are no fault of one row (`duplicates.py`).

A promise costs one boolean expression on every row; words are made for the broken rows alone.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from retail_platform.cleaning.conform import STORE_ZONE, as_written, text_of
from retail_platform.cleaning.text import expected
from retail_platform.contracts.feeds import Feed
from retail_platform.contracts.table import Table
from retail_platform.settings import FeedSettings

_SHOWN_CHARACTERS = 40
_DAY = r"[+-]?\d+-\d{2}-\d{2}"


@dataclass(frozen=True)
class Promise:
    """`broken` is true where a row breaks the promise (null counts as kept); `reason` is the text for such a row."""

    broken: pl.Expr
    reason: pl.Expr


def split_by_promises(
    frame: pl.DataFrame, promises: Collection[Promise], kept_columns: Sequence[str] | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that keep every promise, with their `kept_columns` where these are named, and the others with all their
    `reasons` (a list of text, never empty).
    """
    broken = [promise.broken.fill_null(value=False) for promise in promises]
    any_broken = frame.select(pl.any_horizontal(broken).alias("broken"))["broken"]
    reasons = [pl.when(b).then(promise.reason) for b, promise in zip(broken, promises, strict=True)]
    rejected = frame.filter(any_broken).with_columns(pl.concat_list(reasons).list.drop_nulls().alias("reasons"))
    return frame.select(kept_columns or frame.columns).filter(~any_broken), rejected


def readable(feed: Feed, form: FeedSettings) -> list[Promise]:
    """Text that is there can be read as its column's type, and a time is one on the clock of a known store."""
    promises = []
    for c in feed.columns:
        if c.dtype == pl.String():
            continue
        column, shown = pl.col(c.name), _shown(pl.col(text_of(c.name)))
        unread = _unreadable(c.name)
        if form.time_zone and c.dtype == pl.Datetime("us"):
            written, zone = pl.col(as_written(c.name)), pl.col(STORE_ZONE)
            unread = pl.col(text_of(c.name)).is_not_null() & written.is_null()
            promises += [
                Promise(
                    written.is_not_null() & zone.is_null(),
                    _format("store_id: the time zone of {} is not in clean.stores", _shown(pl.col("store_id"))),
                ),
                Promise(
                    written.is_not_null() & zone.is_not_null() & column.is_null(),
                    _format(
                        "{}: {} is no one moment in {}, whose clock was changed that night",
                        c.name,
                        shown,
                        form.time_zone,
                    ),
                ),
            ]
        promises.append(Promise(unread, _format("{}: {} is not {}", c.name, shown, expected(c.dtype, form))))
    return promises


def keeps_contract(feed: Feed, table: Table) -> list[Promise]:
    """The row rules of the clean table. A value that is there but unreadable does not count as missing too."""
    promises = []
    typed = {c.name for c in feed.columns if c.dtype != pl.String}
    missing = {f"{name}: missing": name for name in typed}
    for rule in table.row_rules():
        broken = ~rule.holds
        if rule.name in missing:
            broken = broken & ~_unreadable(missing[rule.name])
        promises.append(Promise(broken, pl.lit(rule.message)))
    return promises


def refers_to(column: str, known: Collection[str] | pl.Series, place: str) -> Promise:
    """The value of `column` stands in `place`, whose keys are `known`."""
    keys = pl.Series(list(known), dtype=pl.String)
    return Promise(
        ~pl.col(column).is_in(keys.implode()), _format("{}: {} is not in {}", column, _shown(pl.col(column)), place)
    )


def lies_in_its_partition(column: str, today: date) -> list[Promise]:
    """The row's own date is the partition under which it is kept.

    It is not where the date lay after the day of arrival or before the first accepted one. Such a row stays
    rejected when its day comes, since its partition is that of its arrival, until a replay moves it to its day.
    """
    day, partition = pl.col(column), pl.col("partition_date")
    return [
        Promise(day > today, _format("{}: {} lies after today", column, day)),
        Promise(
            (day > partition) & (day <= today),
            _format("{}: {} lies after the day of arrival, {}", column, day, partition),
        ),
        Promise(day < partition, _format("{}: {} lies before the first accepted date", column, day)),
    ]


def kind_of(reason: pl.Expr) -> pl.Expr:
    """A reason without the values in it, so that equal faults count together: `quantity is not a number`."""
    return (
        reason.str.replace(rf"(?s)^(\w+): (?:'.*'|{_DAY}) ", "$1 ")
        .str.replace(rf", {_DAY}$", "")
        .str.replace(r"^row \d+ of the same file", "another row of the same file")
    )


def _unreadable(column: str) -> pl.Expr:
    return pl.col(text_of(column)).is_not_null() & pl.col(column).is_null()


def _shown(text: pl.Expr) -> pl.Expr:
    rest = pl.when(text.str.len_chars() > _SHOWN_CHARACTERS).then(pl.lit("…")).otherwise(pl.lit(""))
    return pl.format("'{}{}'", text.str.head(_SHOWN_CHARACTERS), rest)


def _format(template: str, *parts: str | pl.Expr) -> pl.Expr:
    return pl.format(template, *(pl.lit(part) if isinstance(part, str) else part for part in parts))
