"""The columns of a file against its feed and against the last file: every difference, with its remedy."""

from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retail_platform.contracts import FEEDS
from retail_platform.settings import FeedSettings
from retail_platform.sources.columns import (
    Difference,
    FileColumns,
    differences,
    unreadable_columns,
    wanted_columns,
    why_unusable,
)

SALES = FEEDS["pos_sales"]
PLAIN = FeedSettings()
BASE = ["business_date", "store_id", "item_id", "quantity", "sales_amount"]


def of(*names: str, **types: str) -> FileColumns:
    return FileColumns("parquet" if types else "csv", tuple((name, types.get(name, "text")) for name in names))


def compared(now: FileColumns, before: FileColumns | None, form: FeedSettings = PLAIN) -> list[Difference]:
    return differences(SALES, form, now, before, "old.csv")


def only(found: Sequence[Difference]) -> Difference:
    (difference,) = found
    return difference


@given(st.lists(st.tuples(st.text(), st.text())))
def test_columns_come_back_from_the_ledger_as_they_were(columns: list[tuple[str, str]]) -> None:
    kept = FileColumns("csv", tuple(columns))
    assert FileColumns.from_json(kept.as_json()) == kept


@given(st.permutations(BASE))
def test_equal_columns_have_no_difference_and_another_order_is_a_note(names: list[str]) -> None:
    found = compared(of(*names), of(*BASE))
    assert [d.kind for d in found] == ([] if names == BASE else ["reordered"])
    assert not any(d.alert for d in found)


def test_a_lost_column_is_an_alert_with_the_remedy() -> None:
    lost = only(compared(of(*BASE[:-1]), of(*BASE)))
    assert (lost.kind, lost.alert) == ("lost", True)
    assert lost.message == (
        "column sales_amount, which old.csv had, is gone and stays empty; if it has another name now, say so under "
        "[feeds.pos_sales.columns] in retail.toml"
    )


@pytest.mark.parametrize("new", ["Sales Amount", "sales_amt", "salesamount"])
def test_a_renamed_column_is_recognised_and_the_setting_is_given(new: str) -> None:
    renamed = only(compared(of(*BASE[:-1], new), of(*BASE)))
    assert (renamed.kind, renamed.alert) == ("renamed", True)
    assert f'set sales_amount = "{new}" under [feeds.pos_sales.columns]' in renamed.message


def test_columns_of_unlike_names_are_not_taken_for_one() -> None:
    assert {d.kind for d in compared(of(*BASE[:-1], "weather"), of(*BASE))} == {"lost", "gained"}


def test_a_new_column_is_a_note_that_tells_whether_it_is_taken_in() -> None:
    known = only(compared(of(*BASE, "customer_id"), of(*BASE)))
    assert (known.kind, known.alert) == ("gained", False)
    assert "is taken in" in known.message
    unknown = only(compared(of(*BASE, "till"), of(*BASE)))
    assert unknown.message == (
        "columns left out, new since old.csv: till; feeds.pos_sales.extra_columns in retail.toml admits them"
    )
    admitted = FeedSettings(extra_columns={"till": "text"})
    assert "is taken in" in only(compared(of(*BASE, "till"), of(*BASE), admitted)).message


def test_columns_that_were_left_out_before_are_said_to_be_so_and_raise_no_alert() -> None:
    found = only(compared(of(*BASE, "till"), of(*BASE, "till")))
    assert (found.kind, found.alert) == ("unknown", False)
    assert only(compared(of(*BASE, "till"), None)).kind == "unknown"


def test_a_number_that_became_text_is_an_alert_and_another_number_type_a_note() -> None:
    before = of(*BASE, store_id="int64", quantity="double", item_id="null")
    now = of(*BASE, store_id="string", quantity="int32", item_id="string")
    text, number = compared(now, before)
    assert (text.kind, text.alert, number.kind, number.alert) == ("retyped", True, "retyped", False)
    assert "column store_id is string and was int64 in old.csv" in text.message
    assert "quantity is int32 and was double" in number.message


def test_types_of_different_formats_are_not_compared() -> None:
    assert compared(of(*BASE), of(*BASE, store_id="int64")) == []


def test_names_in_files_count_and_not_ours() -> None:
    form = FeedSettings(columns={"item_id": "sku"})
    assert wanted_columns(SALES, form)["item_id"] == "sku"
    names = ["business_date", "store_id", "sku", "quantity"]
    assert why_unusable(SALES, form, names) is None
    assert why_unusable(SALES, PLAIN, names) is not None


def test_every_reason_for_a_refusal_is_told_at_once() -> None:
    unusable = why_unusable(SALES, PLAIN, ["business_date", "qty", "item_id", "item_id"])
    assert unusable is not None
    problems, remedy = unusable
    assert "required columns are missing: store_id, quantity" in problems[0]
    assert "stand more than once in the header: item_id" in problems[1]
    assert "Give each column a name of its own." in remedy


def test_a_business_date_from_a_time_makes_that_time_required() -> None:
    form = FeedSettings(business_date_from="sold_at")
    assert why_unusable(SALES, form, ["sold_at", "store_id", "item_id", "quantity"]) is None
    unusable = why_unusable(SALES, form, ["business_date", "store_id", "item_id", "quantity"])
    assert unusable is not None
    assert "missing: sold_at" in unusable[0][0]


def test_a_column_of_which_nothing_can_be_read_is_an_alert() -> None:
    frame = pl.DataFrame({c.name: pl.Series([None, None], dtype=pl.String) for c in SALES.columns}).with_columns(
        quantity=pl.Series(["1,5", "2,0"]), sales_amount=pl.Series(["1,5", "2.0"]), store_id=pl.Series(["a", "b"])
    )
    unreadable = only(unreadable_columns(SALES, PLAIN, frame))
    assert (unreadable.kind, unreadable.alert) == ("unreadable", True)
    assert unreadable.message.startswith("none of the first 2 values of quantity can be read as a number")
    assert unreadable_columns(SALES, FeedSettings(decimal=","), frame) == []
