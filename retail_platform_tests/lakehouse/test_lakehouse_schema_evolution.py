"""A table follows its contract in place where that loses nothing, and otherwise not at all."""

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.contracts.table import Table
from retail_platform.lakehouse import Append, Lakehouse, ReplaceTable
from retail_platform.lakehouse.ddl import SchemaChangeError
from retail_platform_tests.lakehouse.shop import BY, make_table

OLD = make_table("shop.plan", {"store": pl.String(), "week": pl.Int16(), "share": pl.Float32()})


def frame(table: Table, **columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema=table.polars_schema)


@pytest.fixture
def old_lake(lake: Lakehouse) -> Lakehouse:
    lake.commit([ReplaceTable(OLD, frame(OLD, store=["S0"], week=[9], share=[0.5]))], BY)
    return lake


def test_added_columns_and_widened_numbers_keep_the_rows_already_there(old_lake: Lakehouse) -> None:
    columns = {"store": pl.String(), "note": pl.String(), "week": pl.Int64(), "share": pl.Float64()}
    new = make_table("shop.plan", columns, nullable=["note", "share"])
    commit = old_lake.commit([Append(new, frame(new, store=["S1"], note=["new"], week=[2**40], share=[None]))], BY)

    assert commit.schema_changes == (
        "added column note VARCHAR",
        "widened column week from SMALLINT to BIGINT",
        "widened column share from FLOAT to DOUBLE",
        "column share may be empty",
    )
    expected = frame(new, store=["S0", "S1"], note=[None, "new"], week=[9, 2**40], share=[0.5, None])
    assert_frame_equal(old_lake.read("shop.plan").sort("store"), expected, check_column_order=False)
    assert old_lake.commit([Append(new, new.empty())], BY).schema_changes == ()


def test_a_column_that_was_added_in_the_middle_is_still_written_by_name(old_lake: Lakehouse) -> None:
    new = make_table("shop.plan", {"note": pl.String(), **dict(OLD.polars_schema)}, nullable=["note"])
    rows = frame(new, note=["n"], store=["S1"], week=[1], share=[0.25])
    old_lake.commit([ReplaceTable(new, rows)], BY)

    assert_frame_equal(old_lake.read("shop.plan"), rows, check_column_order=False)


def test_a_change_that_loses_or_invents_something_is_refused_with_every_difference(old_lake: Lakehouse) -> None:
    new = make_table("shop.plan", {"week": pl.Int8(), "share": pl.Int64(), "added": pl.String()})
    before = old_lake.snapshot_id()

    with pytest.raises(SchemaChangeError) as refused:
        old_lake.commit([ReplaceTable(new, new.empty())], BY)
    for words in (
        "shop.plan",
        "column store stands in the lake",
        "week is SMALLINT in the lake and TINYINT",
        "share is FLOAT in the lake and BIGINT",
        "new column added must be nullable",
        "dropping it",
    ):
        assert words in str(refused.value)
    assert old_lake.snapshot_id() == before
    assert old_lake.read("shop.plan").schema == OLD.polars_schema


def test_a_column_that_may_be_empty_in_the_lake_cannot_become_a_filled_one(old_lake: Lakehouse) -> None:
    loose = make_table("shop.plan", dict(OLD.polars_schema), nullable=["share"])
    old_lake.commit([Append(loose, loose.empty())], BY)

    with pytest.raises(SchemaChangeError, match="column share may be empty in the lake"):
        old_lake.commit([Append(OLD, OLD.empty())], BY)


def test_a_failed_write_takes_its_schema_change_back(old_lake: Lakehouse) -> None:
    new = make_table("shop.plan", {**dict(OLD.polars_schema), "note": pl.String()}, nullable=["note"])
    broken = frame(OLD, store=["S1"], week=[1], share=[None]).with_columns(note=pl.lit("n"))

    with pytest.raises(Exception, match="share"):
        old_lake.commit([Append(new, broken)], BY)
    assert old_lake.read("shop.plan").columns == list(OLD.polars_schema)
