"""Laws of the accounts that hold for any tables."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from retail_platform.monitoring.accounting import identity_holds, row_identity

FILES = st.sampled_from(["a", "b", "c", "d"])
fates = st.lists(st.tuples(FILES, st.sampled_from(["clean", "rejected", "duplicate"])), max_size=40)


def counts(files: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"file_id": files}, schema={"file_id": pl.String}).group_by("file_id").len("rows")


def accounts(arrived: list[str], kept: list[tuple[str, str]]) -> pl.DataFrame:
    places = [counts([file for file, place in kept if place == name]) for name in ("clean", "rejected", "duplicate")]
    return row_identity(counts(arrived), *places)


@given(fates)
def test_rows_that_all_have_a_place_balance(rows: list[tuple[str, str]]) -> None:
    assert identity_holds(accounts([file for file, _ in rows], rows))


@given(fates.filter(bool), st.data())
def test_one_lost_and_one_doubled_row_are_both_seen(rows: list[tuple[str, str]], data: st.DataObject) -> None:
    arrived = [file for file, _ in rows]
    at = data.draw(st.integers(0, len(rows) - 1))
    assert not identity_holds(accounts(arrived, rows[:at] + rows[at + 1 :]))
    assert not identity_holds(accounts(arrived, [*rows, rows[at]]))
