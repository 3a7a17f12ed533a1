"""The row rules derived from a contract reject exactly the rows that Pandera itself rejects."""

import copy
from datetime import date, datetime

import pandera.polars as pa
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.cleaning.reasons import Promise, split_by_promises
from retail_platform.contracts import FEEDS, TABLES, Table

CLEAN_TABLES = sorted(feed.clean_table for feed in FEEDS.values())

# Text as cleaning leaves it: without blanks around it, null instead of nothing, numbers finite.
_TEXT = st.sampled_from(["a" * 64, "A" * 64, "b" * 32, "b" * 33, "S1", "*"]) | st.text(max_size=5).map(
    str.strip
).filter(len)
_VALUES: dict[pl.DataType, st.SearchStrategy[object]] = {
    pl.String(): _TEXT,
    pl.Int64(): st.integers(-2, 3),
    pl.Float64(): st.sampled_from([0.0, -0.0, 1.0, 1.5, -1.0, 60.0, 1e9, -1e9]) | st.floats(-1e20, 1e20),
    pl.Date(): st.dates(date(2017, 1, 1), date(2017, 1, 3)),
    pl.Datetime("us"): st.datetimes(datetime(2017, 1, 1), datetime(2017, 1, 2)),
}


def _row(table: Table) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({c.name: st.none() | _VALUES[c.dtype] | _VALUES[c.dtype] for c in table.columns})


def _rows_that_pandera_rejects(table: Table, frame: pl.DataFrame) -> set[int]:
    of_single_rows = copy.copy(table.schema)
    of_single_rows.unique = None
    try:
        of_single_rows.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as broken:
        return set(broken.failure_cases["index"].to_list())
    return set()


@pytest.mark.parametrize("name", CLEAN_TABLES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_row_rules_and_pandera_reject_the_same_rows(name: str, data: st.DataObject) -> None:
    table = TABLES[name]
    rows = data.draw(st.lists(_row(table), max_size=12))
    frame = pl.DataFrame(rows, schema=table.polars_schema)
    promises = [Promise(~rule.holds, pl.lit(rule.message)) for rule in table.row_rules()]
    good, rejected = split_by_promises(frame.with_row_index("position"), promises)
    assert good.height + rejected.height == frame.height
    assert set(rejected["position"].to_list()) == _rows_that_pandera_rejects(table, frame)
