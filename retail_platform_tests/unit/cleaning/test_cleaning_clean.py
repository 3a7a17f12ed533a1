"""What cleaning makes of each feed: typed rows, reasons in words, precedence of duplicates, counted steps."""

import json
from collections.abc import Mapping
from datetime import date, datetime

import polars as pl
import pytest

from retail_platform.cleaning import CleanedFeed, CustomerKeyMissing, References, clean_feed, pseudonym
from retail_platform.contracts import FEEDS, TABLES, ContractBroken
from retail_platform.contracts.feeds import RAW_TABLES

TODAY = date(2017, 6, 1)
NOW = datetime(2017, 6, 1, 8, 30)
DAY = date(2017, 3, 1)
KEY = b"a key of the tests"
NOTHING_KNOWN = References()
FILE_A, FILE_B = "a" * 64, "b" * 64


def _raw(
    feed: str, *rows: Mapping[str, str | None], file: str = FILE_A, hour: int = 1, day: date = DAY
) -> pl.DataFrame:
    """Raw rows of one file, numbered from 1; columns that are not named are empty."""
    provenance = {"file_id": file, "partition_date": day, "ingested_at": datetime(2017, 6, 1, hour)}
    return pl.DataFrame(
        [provenance | {"row_number": number} | dict(row) for number, row in enumerate(rows, start=1)],
        schema=RAW_TABLES[feed].polars_schema,
    )


def _clean(feed: str, *raw: pl.DataFrame, references: References = NOTHING_KNOWN) -> CleanedFeed:
    cleaned = clean_feed(feed, pl.concat(raw), references=references, now=NOW, today=TODAY, customer_key=KEY)
    TABLES[FEEDS[feed].clean_table].validate(cleaned.clean)
    TABLES["quarantine.rejected_rows"].validate(cleaned.rejected)
    TABLES["quarantine.duplicate_rows"].validate(cleaned.duplicates)
    return cleaned


def _line(**values: str | None) -> dict[str, str | None]:
    return {"business_date": "2017-03-01", "store_id": "S1", "item_id": "I1", "quantity": "1", **values}


def _reasons(cleaned: CleanedFeed) -> list[list[str]]:
    return cleaned.rejected["reasons"].to_list()


def _steps(cleaned: CleanedFeed) -> dict[str, int]:
    return {step.name: step.rows for step in cleaned.steps}


@pytest.mark.parametrize("feed", FEEDS)
def test_the_example_row_of_every_feed_is_clean(feed: str) -> None:
    declared = FEEDS[feed]
    example = {c.name: c.example or None for c in declared.columns}
    cleaned = _clean(feed, _raw(feed, example))
    assert _reasons(cleaned) == []
    assert cleaned.clean.height == 1


@pytest.mark.parametrize("feed", FEEDS)
def test_no_raw_rows_give_empty_tables(feed: str) -> None:
    cleaned = _clean(feed, _raw(feed))
    assert (cleaned.clean.height, cleaned.rejected.height, cleaned.duplicates.height) == (0, 0, 0)


def test_a_sale_is_typed_and_keeps_its_origin() -> None:
    sale = _line(
        quantity="-2", sales_amount="-5.98", sold_at="2017-03-01 18:22:05", transaction_id="T1", line_number="4.0"
    )
    assert _clean("pos_sales", _raw("pos_sales", sale)).clean.row(0, named=True) == {
        "source_file_id": FILE_A,
        "source_row_number": 1,
        "business_date": DAY,
        "store_id": "S1",
        "item_id": "I1",
        "transaction_id": "T1",
        "line_number": 4,
        "sold_at": datetime(2017, 3, 1, 18, 22, 5),
        "quantity": -2.0,
        "sales_amount": -5.98,
        "discount_amount": None,
        "customer_pseudonym": None,
    }


def test_a_row_gets_all_its_reasons_at_once() -> None:
    row = _line(store_id=" ", quantity="abc", sales_amount="1e12", line_number="0", sold_at="yesterday")
    assert _reasons(_clean("pos_sales", _raw("pos_sales", row))) == [
        [
            "quantity: 'abc' is not a number",
            "sold_at: 'yesterday' is not a date and time (yyyy-mm-ddThh:mm:ss)",
            "store_id is missing",
            "line_number must be at least 1",
            "sales_amount must be at most 1e+09",
        ]
    ]


def test_an_unreadable_value_does_not_count_as_missing_and_a_missing_one_not_as_unreadable() -> None:
    cleaned = _clean("pos_sales", _raw("pos_sales", _line(quantity="abc"), _line(quantity=None)))
    assert _reasons(cleaned) == [["quantity: 'abc' is not a number"], ["quantity is missing"]]


def test_a_long_value_is_shown_by_its_first_40_characters() -> None:
    cleaned = _clean("pos_sales", _raw("pos_sales", _line(quantity="x" * 40), _line(quantity="x" * 41)))
    assert _reasons(cleaned) == [
        [f"quantity: '{'x' * 40}' is not a number"],
        [f"quantity: '{'x' * 40}…' is not a number"],
    ]


def test_rules_across_columns_are_reasons_too() -> None:
    price = {"store_id": "S1", "item_id": "I1", "valid_from": "2017-03-02", "valid_to": "2017-03-01", "price": "1"}
    assert _reasons(_clean("prices", _raw("prices", price))) == [["valid_to must not lie before valid_from"]]


def test_a_rejected_row_is_kept_whole_as_it_was_received() -> None:
    row = _line(quantity=' a"b\\\n\u2028', customer_id="900")
    rejected = _clean("pos_sales", _raw("pos_sales", row)).rejected.row(0, named=True)
    assert json.loads(rejected["row_json"]) == dict.fromkeys(FEEDS["pos_sales"].column_names) | row
    assert (rejected["feed"], rejected["file_id"], rejected["row_number"]) == ("pos_sales", FILE_A, 1)
    assert (rejected["partition_date"], rejected["rejected_at"]) == (DAY, NOW)


def test_unknown_references_are_named_where_the_masters_are_known() -> None:
    raw = _raw("pos_sales", _line(store_id="X9"), _line(item_id="FRUIT"), _line())
    known = References(frozenset({"S1"}), pl.Series(["I1"]), frozenset({"FRUIT"}))
    assert _reasons(_clean("pos_sales", raw, references=known)) == [
        ["store_id: 'X9' is not in clean.stores"],
        ["item_id: 'FRUIT' is not in clean.items"],
    ]
    assert _reasons(_clean("pos_sales", raw)) == []


def test_stock_may_be_reported_for_a_node_of_the_item_hierarchy() -> None:
    stock = {"as_of_date": "2017-03-01", "store_id": "S1", "on_hand": "3"}
    raw = _raw("inventory", stock | {"item_id": "FRUIT"}, stock | {"item_id": "I1"}, stock | {"item_id": "FISH"})
    known = References(None, frozenset({"I1"}), frozenset({"FRUIT"}))
    assert _reasons(_clean("inventory", raw, references=known)) == [["item_id: 'FISH' is not in clean.items"]]


def test_an_empty_master_counts_as_not_known() -> None:
    items, stores = TABLES["clean.items"].empty(), TABLES["clean.stores"].empty()
    assert References.of(items, stores).store_ids is None
    assert _reasons(_clean("pos_sales", _raw("pos_sales", _line()), references=References.of(items, stores))) == []


def test_a_date_outside_the_accepted_days_is_rejected_and_never_comes_clean_by_waiting() -> None:
    arrived = date(2017, 5, 30)
    rows = [_line(business_date=day) for day in ("2031-01-01", "2017-05-31", "2001-01-01", "2017-05-30")]
    cleaned = _clean("pos_sales", _raw("pos_sales", *rows, day=arrived))
    assert _reasons(cleaned) == [
        ["business_date: 2031-01-01 lies after today"],
        ["business_date: 2017-05-31 lies after the day of arrival, 2017-05-30"],
        ["business_date: 2001-01-01 lies before the first accepted date"],
    ]
    assert cleaned.clean["business_date"].to_list() == [arrived]


def test_the_same_values_again_are_a_repetition_of_the_first_row() -> None:
    cleaned = _clean("pos_sales", _raw("pos_sales", _line(), _line(quantity=" 1.0 "), _line(item_id="I2")))
    assert cleaned.clean["source_row_number"].to_list() == [1, 3]
    assert cleaned.duplicates.select("row_number", "kept_file_id", "kept_row_number", "kind").rows() == [
        (2, FILE_A, 1, "repeated")
    ]


def test_a_later_file_corrects_an_earlier_one() -> None:
    earlier = _raw("pos_sales", _line(quantity="1"), file=FILE_B, hour=1)
    later = _raw("pos_sales", _line(item_id="I2"), _line(quantity="7"), file=FILE_A, hour=2)
    cleaned = _clean("pos_sales", later, earlier)
    assert cleaned.clean.filter(item_id="I1")["quantity"].to_list() == [7.0]
    assert cleaned.duplicates.select("file_id", "row_number", "kept_file_id", "kept_row_number", "kind").rows() == [
        (FILE_B, 1, FILE_A, 2, "superseded")
    ]


def test_a_row_that_contradicts_another_of_its_file_is_rejected_with_that_row_named() -> None:
    cleaned = _clean("pos_sales", _raw("pos_sales", _line(), _line(quantity="2"), _line()))
    assert cleaned.clean["source_row_number"].to_list() == [1]
    assert cleaned.duplicates["row_number"].to_list() == [3]
    grain = "business_date, store_id, item_id, transaction_id, line_number"
    reason = f"row 1 of the same file has the same {grain} and other values; the first one counts"
    assert _reasons(cleaned) == [[reason]]


def test_a_broken_row_of_a_later_file_corrects_nothing() -> None:
    good, broken = _raw("pos_sales", _line()), _raw("pos_sales", _line(quantity="?"), file=FILE_B, hour=2)
    cleaned = _clean("pos_sales", good, broken)
    assert cleaned.clean["source_file_id"].to_list() == [FILE_A]
    assert cleaned.rejected["file_id"].to_list() == [FILE_B]


def test_receipt_lines_without_numbers_get_their_place_on_the_receipt_of_their_store() -> None:
    rows = [
        _line(transaction_id=receipt, store_id=store, item_id=item)
        for receipt, store, item in [("T1", "S1", "I1"), ("T2", "S1", "I1"), ("T1", "S1", "I1"), ("T1", "S2", "I1")]
    ]
    cleaned = _clean("pos_sales", _raw("pos_sales", *rows))
    assert dict(cleaned.clean.select("source_row_number", "line_number").rows()) == {1: 1, 2: 1, 3: 2, 4: 1}
    assert _steps(cleaned)["line numbers from file order"] == 4


def test_line_numbers_begin_anew_in_each_file_so_that_a_receipt_landed_again_meets_itself() -> None:
    receipt = [_line(transaction_id="T1", quantity="1"), _line(transaction_id="T1", quantity="2")]
    again = _raw("pos_sales", *receipt, file=FILE_B, hour=2)
    cleaned = _clean("pos_sales", _raw("pos_sales", *receipt), again)
    assert cleaned.clean.select("source_file_id", "line_number").rows() == [(FILE_B, 1), (FILE_B, 2)]
    assert cleaned.duplicates["kind"].to_list() == ["repeated", "repeated"]


def test_a_day_gets_the_same_line_numbers_alone_and_beside_other_days() -> None:
    before = _line(transaction_id="T1", business_date="2017-02-28", line_number=None)
    raw = _raw("pos_sales", before, _line(transaction_id="T1"))
    raw = raw.with_columns(pl.col("business_date").str.to_date().alias("partition_date"))
    both = _clean("pos_sales", raw).clean
    alone = _clean("pos_sales", raw.filter(partition_date=DAY)).clean
    assert both.filter(business_date=DAY)["line_number"].to_list() == alone["line_number"].to_list() == [1]


def test_two_equal_lines_of_a_numbered_receipt_are_a_repetition_but_unnumbered_ones_two_purchases() -> None:
    numbered = [_line(transaction_id="T1", line_number="1")] * 2
    unnumbered = [_line(transaction_id="T1")] * 2
    assert _clean("pos_sales", _raw("pos_sales", *numbered)).clean.height == 1
    assert _clean("pos_sales", _raw("pos_sales", *unnumbered)).clean.height == 2


def test_a_daily_total_has_no_line_number() -> None:
    assert _clean("pos_sales", _raw("pos_sales", _line())).clean["line_number"].to_list() == [None]


def test_customer_ids_become_pseudonyms_that_depend_on_the_key() -> None:
    raw = _raw("pos_sales", _line(customer_id="900", item_id="I1"), _line(customer_id=" 900", item_id="I2"))
    cleaned = _clean("pos_sales", raw)
    assert cleaned.clean["customer_pseudonym"].to_list() == [pseudonym("900", KEY)] * 2
    assert pseudonym("900", KEY) != pseudonym("900", b"another key")
    assert _steps(cleaned)["customer ids pseudonymised"] == 2


def test_a_pseudonym_is_the_published_hmac() -> None:
    assert pseudonym("what do ya want for nothing?", b"Jefe") == "5bdcc146bf60754e6a042426089575c7"  # RFC 4231, case 2


@pytest.mark.parametrize("key", [None, b""])
def test_customer_ids_without_a_key_stop_the_cleaning(key: bytes | None) -> None:
    raw = _raw("pos_sales", _line(customer_id="900"))
    with pytest.raises(CustomerKeyMissing, match=r"1 rows .* RETAIL_CUSTOMER_KEY"):
        clean_feed("pos_sales", raw, references=NOTHING_KNOWN, now=NOW, today=TODAY, customer_key=key)


def test_without_customer_ids_no_key_is_needed() -> None:
    raw = _raw("pos_sales", _line())
    cleaned = clean_feed("pos_sales", raw, references=NOTHING_KNOWN, now=NOW, today=TODAY, customer_key=None)
    assert cleaned.clean.height == 1


def test_an_event_without_a_region_concerns_every_region() -> None:
    event = {"date": "2017-11-23", "event_name": "Thanksgiving"}
    cleaned = _clean("calendar_events", _raw("calendar_events", event, event | {"region": "CA"}))
    assert cleaned.clean["region"].to_list() == ["*", "CA"]
    assert _steps(cleaned)["empty regions read as everywhere"] == 1


def test_every_conforming_step_counts_its_rows() -> None:
    rows = [
        _line(store_id=" S1", item_id="I1 "),
        _line(business_date="2017-03-01T00:00:00", item_id="I2"),
        _line(line_number="1.0", item_id="I3", transaction_id="T1"),
        _line(sales_amount="  ", item_id="I4"),
        _line(item_id="I5"),
    ]
    assert _steps(_clean("pos_sales", _raw("pos_sales", *rows))) == {
        "trimmed blanks": 2,
        "decimals read as whole numbers": 1,
        "times of day left out of dates": 1,
        "line numbers from file order": 0,
        "customer ids pseudonymised": 0,
    }


def test_a_frame_that_is_not_of_the_raw_table_is_refused_with_every_difference() -> None:
    raw = _raw("stores", {"store_id": "S1"}).drop("region", "time_zone")
    with pytest.raises(ContractBroken, match=r"raw\.stores: .*region .*time_zone"):
        clean_feed("stores", raw, references=NOTHING_KNOWN, now=NOW, today=TODAY, customer_key=None)


def test_an_unknown_feed_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown feed sales; known are pos_sales"):
        clean_feed("sales", _raw("stores"), references=NOTHING_KNOWN, now=NOW, today=TODAY, customer_key=None)
