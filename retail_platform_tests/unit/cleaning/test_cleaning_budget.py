"""The reject budget: which days have too many rejected rows, and what is said of them."""

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.cleaning import commonest_reasons, days_over_budget, kind_of
from retail_platform.contracts import TABLES

FILE = "f" * 64
MONDAY, TUESDAY = date(2017, 3, 6), date(2017, 3, 7)


def arrived(*days: date) -> pl.DataFrame:
    rows = [(FILE, number, day) for number, day in enumerate(days, start=1)]
    schema = {"file_id": pl.String, "row_number": pl.Int64, "partition_date": pl.Date}
    return pl.DataFrame(rows, schema=schema, orient="row")


def rejections(raw: pl.DataFrame, reasons: Sequence[str] = ("quantity is missing",)) -> pl.DataFrame:
    return raw.select(
        pl.lit("pos_sales").alias("feed"),
        "file_id",
        "row_number",
        "partition_date",
        pl.lit(list(reasons)).alias("reasons"),
        pl.lit("{}").alias("row_json"),
        pl.lit(datetime(2017, 3, 8), pl.Datetime("us")).alias("rejected_at"),
    ).cast(dict(TABLES["quarantine.rejected_rows"].polars_schema))


NO_WAIVERS = pl.DataFrame(schema={"file_id": pl.String, "row_number": pl.Int64})


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([MONDAY, TUESDAY]), st.booleans(), st.booleans()), max_size=30),
    budget=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    tolerated=st.integers(0, 5),
    by_day=st.booleans(),
)
def test_a_day_is_over_budget_exactly_where_its_open_rejects_are(
    rows: list[tuple[date, bool, bool]], budget: float, tolerated: int, *, by_day: bool
) -> None:
    raw = arrived(*(day for day, _, _ in rows))
    bad = rejections(raw.filter(pl.Series([rejected for _, rejected, _ in rows], dtype=pl.Boolean)))
    waivers = raw.filter(pl.Series([waived for _, _, waived in rows], dtype=pl.Boolean)).select("file_id", "row_number")
    found = days_over_budget(raw, bad, waivers, budget=budget, tolerated=tolerated, by_day=by_day)

    expected = []
    for day in [MONDAY, TUESDAY] if by_day else [None]:
        of_day = [row for row in rows if day in (None, row[0])]
        open_rows = sum(rejected and not waived for _, rejected, waived in of_day)
        if open_rows > tolerated and open_rows > budget * len(of_day):
            expected.append((day, len(of_day), open_rows))
    assert found.rows() == expected


def test_a_good_day_does_not_thin_out_a_bad_one() -> None:
    raw = arrived(*[MONDAY] * 10, *[TUESDAY] * 1000)
    bad = rejections(raw.filter(partition_date=MONDAY))
    found = days_over_budget(raw, bad, NO_WAIVERS, budget=0.05, tolerated=5, by_day=True)
    assert found.rows() == [(MONDAY, 10, 10)]


def test_reasons_are_counted_without_their_values_and_shown_with_an_example() -> None:
    raw = arrived(*[MONDAY] * 3)
    bad = pl.concat(
        [
            rejections(raw[:1], ["quantity: 'abc' is not a number", "store_id is missing"]),
            rejections(raw[1:2], ["quantity: 'x' is not a number"]),
            rejections(raw[2:], ["quantity: '' is not a number"]),
        ]
    )
    assert commonest_reasons(bad, {FILE: "a.csv"}) == [
        "3 rows: quantity is not a number, for example row 1 of a.csv (quantity: 'abc' is not a number)",
        "1 rows: store_id is missing, for example row 1 of a.csv (store_id is missing)",
    ]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("quantity: 'abc' is not a number", "quantity is not a number"),
        ("quantity: 'it's a: 'b' c' is not a number", "quantity is not a number"),
        ("quantity: 'two\nlines' is not a number", "quantity is not a number"),
        ("item_id: 'X' is not in clean.items", "item_id is not in clean.items"),
        ("business_date: 2031-01-01 lies after today", "business_date lies after today"),
        ("business_date: +12031-01-01 lies after today", "business_date lies after today"),
        (
            "business_date: 2017-03-02 lies after the day of arrival, 2017-03-01",
            "business_date lies after the day of arrival",
        ),
        ("store_id is missing", "store_id is missing"),
        ("line_number must be at least 1", "line_number must be at least 1"),
        (
            "row 17 of the same file has the same store_id and other values; the first one counts",
            "another row of the same file has the same store_id and other values; the first one counts",
        ),
    ],
)
def test_a_kind_is_the_reason_without_its_values(reason: str, kind: str) -> None:
    assert pl.select(kind_of(pl.lit(reason))).item() == kind
