"""Files that are complete per store and day: what a later one replaces, withdraws and leaves alone."""

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from retail_platform.cleaning import NOTHING_WAIVED, CleanedFeed, References, clean_feed
from retail_platform.cleaning.store_days import HELD_BACK
from retail_platform.contracts import TABLES
from retail_platform.settings import FeedSettings

DAY, NEXT_DAY, TODAY = date(2017, 3, 1), date(2017, 3, 2), date(2017, 6, 1)
COMPLETE = FeedSettings(replaces="store_day", reject_budget=0.25)
OLD, NEW, NEWEST = "c" * 64, "b" * 64, "a" * 64

Line = tuple[str | None, str, str]
"""Store, item and quantity."""


def file(file_id: str, lines: Sequence[Line], day: date = DAY, written: str | None = None) -> pl.DataFrame:
    hour = [OLD, NEW, NEWEST].index(file_id)
    rows = [
        {
            "file_id": file_id,
            "row_number": number,
            "partition_date": day,
            "ingested_at": datetime(2017, 6, 1, hour),
            "business_date": written or str(day),
            "store_id": store,
            "item_id": item,
            "quantity": quantity,
        }
        for number, (store, item, quantity) in enumerate(lines, start=1)
    ]
    return pl.DataFrame(rows, schema=TABLES["raw.pos_sales"].polars_schema)


def clean(*raw: pl.DataFrame, form: FeedSettings = COMPLETE, waived: pl.DataFrame = NOTHING_WAIVED) -> CleanedFeed:
    cleaned = clean_feed(
        "pos_sales",
        pl.concat(raw),
        references=References(),
        now=datetime(2017, 6, 1, 8),
        today=TODAY,
        customer_key=None,
        form=form,
        waived=waived,
    )
    TABLES["quarantine.duplicate_rows"].validate(cleaned.duplicates)
    return cleaned


def kept(cleaned: CleanedFeed) -> list[tuple[str, str, float]]:
    return cleaned.clean.select("store_id", "item_id", "quantity").rows()


def left_out(cleaned: CleanedFeed) -> list[tuple[str, int, str, int | None, str]]:
    return cleaned.duplicates.select("file_id", "row_number", "kept_file_id", "kept_row_number", "kind").rows()


def rejected(cleaned: CleanedFeed) -> dict[tuple[str, int], list[str]]:
    return {(row["file_id"], row["row_number"]): row["reasons"] for row in cleaned.rejected.iter_rows(named=True)}


def test_a_line_that_the_later_file_leaves_out_is_withdrawn_and_the_later_file_named() -> None:
    old = file(OLD, [("S1", "MILK", "1"), ("S1", "SOUP", "2"), ("S1", "BREAD", "3")])
    new = file(NEW, [("S1", "BREAD", "3"), ("S1", "MILK", "5")])
    cleaned = clean(old, new)
    assert kept(cleaned) == [("S1", "BREAD", 3.0), ("S1", "MILK", 5.0)]
    assert left_out(cleaned) == [
        (OLD, 1, NEW, 2, "superseded"),
        (OLD, 2, NEW, None, "withdrawn"),
        (OLD, 3, NEW, 1, "repeated"),
    ]
    row_by_row = clean(old, new, form=FeedSettings())
    assert kept(row_by_row) == [("S1", "BREAD", 3.0), ("S1", "MILK", 5.0), ("S1", "SOUP", 2.0)]


def test_other_stores_and_other_days_of_the_earlier_file_stand() -> None:
    old = file(OLD, [("S1", "MILK", "1"), ("S2", "MILK", "2")])
    cleaned = clean(old, file(OLD, [("S1", "MILK", "3")], NEXT_DAY), file(NEW, [("S1", "SOUP", "4")]))
    assert kept(cleaned) == [("S1", "SOUP", 4.0), ("S2", "MILK", 2.0), ("S1", "MILK", 3.0)]


def test_what_arrives_last_counts_whatever_the_order_of_the_rows() -> None:
    files = [
        file(NEWEST, [("S1", "MILK", "3")]),
        file(OLD, [("S1", "SOUP", "1")]),
        file(NEW, [("S1", "BREAD", "2")]),
    ]
    cleaned = clean(*files)
    assert kept(cleaned) == [("S1", "MILK", 3.0)]
    assert left_out(cleaned) == [(NEW, 1, NEWEST, None, "withdrawn"), (OLD, 1, NEWEST, None, "withdrawn")]


def test_a_file_whose_rows_of_the_day_are_all_broken_leaves_the_day_as_it_was() -> None:
    cleaned = clean(file(OLD, [("S1", "MILK", "1")]), file(NEW, [("S1", "MILK", "?")]))
    assert kept(cleaned) == [("S1", "MILK", 1.0)]
    assert rejected(cleaned) == {(NEW, 1): ["quantity: '?' is not a number"]}


def test_a_file_over_the_reject_budget_of_the_day_replaces_nothing_and_its_good_rows_say_so() -> None:
    old = file(OLD, [("S1", "MILK", "1"), ("S1", "SOUP", "2")])
    new = file(NEW, [("S1", "MILK", "5"), ("S1", "SOUP", "?"), ("S1", "BREAD", "1"), ("S1", "RICE", "x")])
    cleaned = clean(old, new)
    assert kept(cleaned) == [("S1", "MILK", 1.0), ("S1", "SOUP", 2.0)]
    assert [rejected(cleaned)[NEW, row] for row in (1, 3)] == [[HELD_BACK]] * 2
    assert left_out(cleaned) == []


def test_rows_that_were_waived_do_not_hold_a_correction_back() -> None:
    old = file(OLD, [("S1", "MILK", "1"), ("S1", "SOUP", "2")])
    new = file(NEW, [("S1", "MILK", "5"), ("S1", "SOUP", "?")])
    waived = pl.DataFrame({"file_id": [NEW], "row_number": [2]})
    assert kept(clean(old, new, waived=waived)) == [("S1", "MILK", 5.0)]


def test_within_the_reject_budget_the_day_is_as_if_only_the_later_file_had_come() -> None:
    new = file(NEW, [("S1", "MILK", "5"), ("S1", "SOUP", "?"), ("S1", "BREAD", "1"), ("S1", "RICE", "2")])
    cleaned, alone = clean(file(OLD, [("S1", "SOUP", "2")]), new), clean(new)
    assert cleaned.clean.equals(alone.clean)
    assert cleaned.rejected.equals(alone.rejected)
    assert left_out(cleaned) == [(OLD, 1, NEW, None, "withdrawn")]


def test_where_no_file_is_within_the_budget_the_first_stands() -> None:
    files = [file(name, [("S1", "MILK", quantity), ("S1", "SOUP", "?")]) for name, quantity in ((OLD, "1"), (NEW, "2"))]
    assert kept(clean(*files)) == [("S1", "MILK", 1.0)]


def test_rejected_rows_of_the_earlier_file_are_replaced_with_it() -> None:
    old = file(OLD, [("S1", "MILK", "?"), ("S1", "SOUP", "2"), ("S2", "MILK", "?")])
    cleaned = clean(old, file(NEW, [("S1", "MILK", "1")]))
    assert left_out(cleaned) == [(OLD, 1, NEW, 1, "withdrawn"), (OLD, 2, NEW, None, "withdrawn")]
    assert list(rejected(cleaned)) == [(OLD, 3)]


def test_a_row_whose_store_or_day_cannot_be_read_is_of_no_store_day() -> None:
    unread = file(OLD, [("S1", "MILK", "1")], written="01.03.2017")
    without_store = file(NEW, [(None, "SOUP", "1"), ("S1", "SOUP", "1")])
    cleaned = clean(unread, without_store, file(NEWEST, [("S1", "RICE", "1")]))
    assert kept(cleaned) == [("S1", "RICE", 1.0)]
    assert sorted(rejected(cleaned)) == [(NEW, 1), (OLD, 1)]
    assert left_out(cleaned) == [(NEW, 2, NEWEST, None, "withdrawn")]


def test_contradictions_and_repetitions_within_the_file_that_counts_are_judged_as_ever() -> None:
    new = file(NEW, [("S1", "MILK", "1"), ("S1", "MILK", "1"), ("S1", "MILK", "2")])
    cleaned = clean(file(OLD, [("S1", "MILK", "1"), ("S1", "MILK", "9")]), new)
    assert kept(cleaned) == [("S1", "MILK", 1.0)]
    assert left_out(cleaned) == [
        (NEW, 2, NEW, 1, "repeated"),
        (OLD, 1, NEW, 1, "repeated"),
        (OLD, 2, NEW, 1, "superseded"),
    ]
    assert list(rejected(cleaned)) == [(NEW, 3)]


def test_masters_have_no_store_days_and_go_row_by_row() -> None:
    provenance = {"partition_date": DAY, "row_number": 1}
    rows = [
        {**provenance, "file_id": OLD, "ingested_at": datetime(2017, 6, 1, 1), "store_id": "S1"},
        {**provenance, "file_id": NEW, "ingested_at": datetime(2017, 6, 1, 2), "store_id": "S2"},
    ]
    raw = pl.DataFrame(rows, schema=TABLES["raw.stores"].polars_schema)
    now = datetime(2017, 6, 1, 8)
    cleaned = clean_feed("stores", raw, references=References(), now=now, today=TODAY, customer_key=None, form=COMPLETE)
    assert cleaned.clean["store_id"].to_list() == ["S1", "S2"]
