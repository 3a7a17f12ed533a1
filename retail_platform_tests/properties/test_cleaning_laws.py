"""Laws of cleaning that hold for any mixture of good, bad and repeated rows in any files."""

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from random import Random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from retail_platform.cleaning import CleanedFeed, References, clean_feed
from retail_platform.cleaning.conform import in_arrival_order
from retail_platform.cleaning.text import ISO
from retail_platform.contracts import FEEDS, TABLES
from retail_platform.contracts.feeds import RAW_TABLES
from retail_platform.settings import FeedSettings

TODAY = date(2017, 6, 1)
NOW = datetime(2017, 6, 1, 8)
FIRST_ARRIVAL = datetime(2017, 5, 1)
REFERENCES = References(frozenset({"S1", "S2"}), frozenset({"I1", "I2"}), frozenset({"FRUIT"}))

# A few dozen examples find what hundreds find here, and under load no example is punctual.
LAW = settings(max_examples=20, deadline=None)

# Few values, so that rows collide, and for each type some that are blank, padded or unreadable.
TEXTS: dict[type[pl.DataType] | pl.DataType, list[str | None]] = {
    pl.Date(): ["2017-03-01", "2017-03-02", " 2017-03-01", "2017-03-01T00:00:00", "2031-01-01", "03/01/2017", None],
    pl.Datetime("us"): ["2017-03-01T18:22:05", "18:22", None],
    pl.Float64(): ["1", "1.0", "2", "-3", "1e12", "abc", "NaN", "", None],
    pl.Int64(): ["1", "2", "2.0", "0", "x", None],
    pl.String(): ["S1", "S2", "I1", "I2", " I1", "FRUIT", "X9", 'é\n"', " ", None],
}
USUAL: dict[str, str] = {"store_id": "S1", "item_id": "I1", "date": "2017-03-01", "indicator": "cpi"}

RULES = (ISO, FeedSettings(replaces="store_day", reject_budget=0.5))
"""By which rows or files correct others."""

Row = dict[str, str | None]


@dataclass(frozen=True)
class Delivery:
    """Rows of one feed in files, in the order of their arrival."""

    feed: str
    files: list[list[Row]]

    def raw(self) -> pl.DataFrame:
        schema = RAW_TABLES[self.feed].polars_schema
        rows = [
            row
            | {
                "file_id": f"{15 - number:064x}",
                "row_number": row_number,
                "partition_date": self._partition(row),
                "ingested_at": FIRST_ARRIVAL + timedelta(days=number),
            }
            for number, file in enumerate(self.files)
            for row_number, row in enumerate(file, start=1)
        ]
        return pl.DataFrame(rows, schema=schema)

    def _partition(self, row: Row) -> date:
        column = FEEDS[self.feed].date_column
        try:
            day = date.fromisoformat((row[column] or "").strip()[:10]) if column else TODAY
        except ValueError:
            return TODAY
        return min(day, TODAY)


@st.composite
def deliveries(draw: st.DrawFn, feeds: tuple[str, ...] = tuple(FEEDS)) -> Delivery:
    feed = draw(st.sampled_from(feeds))
    columns = {}
    for column in FEEDS[feed].columns:
        good = USUAL.get(column.name, column.example or None)
        columns[column.name] = st.one_of(st.just(good), st.just(good), st.sampled_from(TEXTS[column.dtype]))
    row: st.SearchStrategy[Row] = st.fixed_dictionaries(columns)
    return Delivery(feed, draw(st.lists(st.lists(row, max_size=6), max_size=4)))


def _clean(feed: str, raw: pl.DataFrame, form: FeedSettings = ISO) -> CleanedFeed:
    return clean_feed(feed, raw, references=REFERENCES, now=NOW, today=TODAY, customer_key=b"key", form=form)


def _rows(frame: pl.DataFrame, file: str, row: str) -> list[tuple[str, int]]:
    return frame.select(file, row).rows()


@LAW
@given(deliveries(), st.sampled_from(RULES))
def test_every_raw_row_is_clean_or_rejected_or_a_duplicate_and_only_one_of_them(
    delivery: Delivery, rule: FeedSettings
) -> None:
    raw = delivery.raw()
    cleaned = _clean(delivery.feed, raw, rule)
    accounted_for = [
        *_rows(cleaned.clean, "source_file_id", "source_row_number"),
        *_rows(cleaned.rejected, "file_id", "row_number"),
        *_rows(cleaned.duplicates, "file_id", "row_number"),
    ]
    assert sorted(accounted_for) == sorted(_rows(raw, "file_id", "row_number"))


@LAW
@given(deliveries())
def test_the_three_results_keep_their_contracts(delivery: Delivery) -> None:
    cleaned = _clean(delivery.feed, delivery.raw())
    TABLES[FEEDS[delivery.feed].clean_table].validate(cleaned.clean)
    TABLES["quarantine.rejected_rows"].validate(cleaned.rejected)
    TABLES["quarantine.duplicate_rows"].validate(cleaned.duplicates)


@LAW
@given(deliveries())
def test_a_rejected_row_has_a_reason_and_reads_back_as_it_was_received(delivery: Delivery) -> None:
    raw = delivery.raw()
    rejected = _clean(delivery.feed, raw).rejected
    assert 0 not in rejected["reasons"].list.len()
    received = {(row["file_id"], row["row_number"]): row for row in raw.iter_rows(named=True)}
    for row in rejected.iter_rows(named=True):
        original = received[row["file_id"], row["row_number"]]
        assert json.loads(row["row_json"]) == {name: original[name] for name in FEEDS[delivery.feed].column_names}
        assert row["partition_date"] == original["partition_date"]


@LAW
@given(deliveries(), st.randoms(use_true_random=False))
def test_the_result_depends_neither_on_the_order_of_the_rows_nor_on_the_run(delivery: Delivery, random: Random) -> None:
    raw = delivery.raw()
    positions = list(range(raw.height))
    random.shuffle(positions)
    once, again = _clean(delivery.feed, raw), _clean(delivery.feed, raw[positions])
    assert_frame_equal(once.clean, again.clean)
    assert_frame_equal(once.rejected, again.rejected)
    assert_frame_equal(once.duplicates, again.duplicates)
    assert once.steps == again.steps


@LAW
@given(deliveries(("pos_sales", "inventory")), st.sampled_from(RULES))
def test_days_cleaned_one_by_one_give_what_they_give_together(delivery: Delivery, rule: FeedSettings) -> None:
    raw = delivery.raw()
    together = _clean(delivery.feed, raw, rule).clean
    apart = [_clean(delivery.feed, day, rule).clean for day in raw.partition_by("partition_date")]
    if apart:
        assert_frame_equal(pl.concat(apart).sort(TABLES[FEEDS[delivery.feed].clean_table].grain), together)


@LAW
@given(deliveries(("pos_sales", "inventory")))
def test_a_clean_row_lies_in_the_partition_under_which_it_is_kept(delivery: Delivery) -> None:
    raw = delivery.raw()
    origin = raw.select(source_file_id="file_id", source_row_number="row_number", partition_date="partition_date")
    joined = _clean(delivery.feed, raw).clean.join(origin, on=["source_file_id", "source_row_number"])
    assert joined.filter(pl.col(FEEDS[delivery.feed].date_column or "") != pl.col("partition_date")).is_empty()


@LAW
@given(deliveries())
def test_the_kept_row_of_a_duplicate_is_a_clean_row_and_holds_the_same_values_where_it_is_a_repetition(
    delivery: Delivery,
) -> None:
    raw = delivery.raw()
    cleaned = _clean(delivery.feed, raw)
    clean = set(_rows(cleaned.clean, "source_file_id", "source_row_number"))
    arrival = dict(raw.select("file_id", "ingested_at").rows())
    for row in cleaned.duplicates.iter_rows(named=True):
        assert (row["kept_file_id"], row["kept_row_number"]) in clean
        kept, left_out = arrival[row["kept_file_id"]], arrival[row["file_id"]]
        assert kept > left_out or (kept == left_out and row["kind"] == "repeated")


@LAW
@given(deliveries())
def test_a_second_delivery_of_the_same_rows_changes_no_value(delivery: Delivery) -> None:
    provenance = ["source_file_id", "source_row_number"]
    once = _clean(delivery.feed, delivery.raw()).clean
    twice = _clean(delivery.feed, Delivery(delivery.feed, [*delivery.files, *delivery.files]).raw()).clean
    assert_frame_equal(once.drop(provenance), twice.drop(provenance))


@LAW
@given(st.lists(st.text(st.characters(categories=("L", "N"))).map("loyalty#{}".format), min_size=1, max_size=8))
def test_no_customer_id_gets_past_the_raw_table_but_in_the_rejected_row_itself(customers: list[str]) -> None:
    usual: Row = {c.name: USUAL.get(c.name, c.example) for c in FEEDS["pos_sales"].columns}
    rows: list[Row] = [usual | {"customer_id": c, "line_number": str(n + 1)} for n, c in enumerate(customers)]
    cleaned = _clean("pos_sales", Delivery("pos_sales", [rows, [row | {"quantity": "?"} for row in rows]]).raw())
    assert cleaned.clean.height == cleaned.rejected.height == len(customers)
    open_parts = [cleaned.clean.write_csv(), str(cleaned.rejected["reasons"].to_list()), str(cleaned.steps)]
    assert not [c for c in customers for part in open_parts if c in part]
    assert cleaned.clean["customer_pseudonym"].n_unique() == len(set(customers))


@LAW
@given(st.lists(st.integers(0, 12_000), max_size=6), st.randoms(use_true_random=False))
def test_pieces_of_files_come_into_the_order_of_their_arrival(cuts: list[int], random: Random) -> None:
    rows = pl.DataFrame(
        {
            "ingested_at": [datetime(2017, 1, day) for day in (1, 1, 2) for _ in range(4000)],
            "file_id": [name for name in "BCA" for _ in range(4000)],
            "row_number": list(range(1, 4001)) * 3,
        }
    )
    pieces = [rows[start:end] for start, end in pairwise(sorted({0, 12_000, *cuts}))]
    random.shuffle(pieces)
    assert_frame_equal(in_arrival_order(pl.concat(pieces)), rows)
    assert_frame_equal(in_arrival_order(rows.sample(fraction=1, shuffle=True, seed=random.randrange(99))), rows)
