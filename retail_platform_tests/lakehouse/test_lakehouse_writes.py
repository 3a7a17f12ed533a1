"""The write contract: a write replaces exactly its slice, by column name, whole or not at all."""

import json
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import (
    Append,
    LakeError,
    Lakehouse,
    Provenance,
    Query,
    ReplaceSlices,
    ReplaceTable,
    Write,
)
from retail_platform.lakehouse.writes import Rows
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import (
    BY,
    MONDAY,
    SALES,
    STOCK,
    TUESDAY,
    make_table,
    sales,
)


def stored(lake: Lakehouse, table: str = "shop.sales") -> pl.DataFrame:
    return lake.read(table).sort("day", "store", "units")


def replace_days(frame: pl.DataFrame, *days: date) -> ReplaceSlices:
    return ReplaceSlices(SALES, frame, [{"day": day} for day in days])


def test_a_lake_that_was_prepared_reads_every_contract_table_as_empty(lake_settings: Settings) -> None:
    lake = Lakehouse(lake_settings)
    lake.prepare()
    lake.prepare()

    with lake.connection() as connection:
        for table in TABLES.values():
            frame = connection.execute(f"FROM {table.name}").pl()
            assert frame.schema == table.polars_schema
            assert frame.is_empty()


def test_a_catalog_that_takes_the_place_of_a_prepared_one_is_prepared_as_well(
    sqlite_lake: Lakehouse, tmp_path: Path
) -> None:
    sqlite_lake.prepare()
    other = Lakehouse(sqlite_lake.settings.model_copy(update={"home": tmp_path / "other"}))
    other.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    other.settings.catalog_file.replace(sqlite_lake.settings.catalog_file)
    sqlite_lake.prepare()
    assert sqlite_lake.tables() == {"shop.sales", *TABLES}


def test_the_first_write_ever_makes_the_lake_and_the_table(lake_settings: Settings) -> None:
    lake = Lakehouse(lake_settings)
    commit = lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2))], BY)

    assert commit.rows == {"shop.sales": 2}
    assert commit.schema_changes == ("created table shop.sales",)
    assert_frame_equal(stored(lake), sales(MONDAY, 1, 2))


def test_rows_that_another_client_keeps_in_the_catalog_are_replaced_as_well(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, SALES.empty())], BY)
    with lake.connection(read_only=False) as connection:
        connection.execute("CALL lake.set_option('data_inlining_row_limit', 10)")
        connection.register("few", sales(MONDAY, 1, 2))
        connection.execute("INSERT INTO shop.sales BY NAME FROM few")
        connection.execute("CALL lake.set_option('data_inlining_row_limit', 0)")
        files = connection.execute("FROM ducklake_list_files('lake', 'sales', schema => 'shop')").fetchall()
        assert files == [], "the rows are in the catalog"
    lake.commit([replace_days(sales(MONDAY, 5), MONDAY)], BY)
    assert_frame_equal(stored(lake), sales(MONDAY, 5))


def test_a_rerun_replaces_what_the_first_run_wrote(lake: Lakehouse) -> None:
    lake.commit([replace_days(pl.concat([sales(MONDAY, 1, 2), sales(TUESDAY, 3)]), MONDAY, TUESDAY)], BY)
    for _ in range(2):
        lake.commit([replace_days(sales(TUESDAY, 7, 8, 9), TUESDAY)], BY)

    assert_frame_equal(stored(lake), pl.concat([sales(MONDAY, 1, 2), sales(TUESDAY, 7, 8, 9)]))


def test_a_slice_is_named_by_all_of_its_columns(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, pl.concat([sales(MONDAY, 1, 2), sales(TUESDAY, 3, 4)]))], BY)
    corrected = pl.DataFrame({"day": [MONDAY], "store": ["S1"], "units": [20]})
    lake.commit([ReplaceSlices(SALES, corrected, [{"day": MONDAY, "store": "S1"}])], BY)

    assert_frame_equal(stored(lake), pl.concat([sales(MONDAY, 1, 20), sales(TUESDAY, 3, 4)]))


def test_replacing_the_table_leaves_nothing_of_before_and_appending_leaves_all(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    lake.commit([ReplaceTable(SALES, sales(TUESDAY, 2))], BY)
    assert_frame_equal(stored(lake), sales(TUESDAY, 2))

    lake.commit([Append(SALES, sales(MONDAY, 1))], BY)
    assert_frame_equal(stored(lake), pl.concat([sales(MONDAY, 1), sales(TUESDAY, 2)]))


@pytest.mark.parametrize(
    "emptying",
    [ReplaceTable(SALES, SALES.empty()), replace_days(SALES.empty(), MONDAY)],
    ids=["the table", "its only slice"],
)
def test_an_empty_frame_empties_its_slice_and_the_table_stays_readable(lake: Lakehouse, emptying: Write) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2))], BY)
    assert lake.commit([emptying], BY).rows == {"shop.sales": 0}
    assert stored(lake).is_empty()

    # Emptying what is empty changes nothing, and must not fail for want of a new snapshot.
    assert lake.commit([emptying], BY).snapshot_id == lake.snapshot_id()
    assert stored(lake).schema == SALES.polars_schema


def test_reordered_columns_land_by_name(lake: Lakehouse) -> None:
    table = make_table("shop.swap", {"quantity": pl.Float64(), "amount": pl.Float64()})
    lake.commit([ReplaceTable(table, pl.DataFrame({"amount": [9.5], "quantity": [2.0]}))], BY)
    lake.commit([Append(table, Query("SELECT 8.5::DOUBLE AS amount, 1.0::DOUBLE AS quantity"))], BY)

    assert lake.read("shop.swap").sort("quantity").to_dict(as_series=False) == {
        "quantity": [1.0, 2.0],
        "amount": [8.5, 9.5],
    }


def reader(frame: pl.DataFrame) -> pa.RecordBatchReader:
    return frame.to_arrow().to_reader(max_chunksize=2)


INPUTS: dict[str, Callable[[pl.DataFrame], Rows]] = {
    "DataFrame": lambda frame: frame,
    "LazyFrame": lambda frame: frame.lazy(),
    "RecordBatchReader": reader,
}


@pytest.mark.parametrize("form", INPUTS)
def test_every_form_of_input_lands_whole(lake: Lakehouse, form: str) -> None:
    frame = sales(MONDAY, *range(7))
    assert lake.commit([ReplaceTable(SALES, INPUTS[form](frame))], BY).rows == {"shop.sales": 7}
    assert_frame_equal(stored(lake), frame)

    assert lake.commit([ReplaceTable(SALES, INPUTS[form](SALES.empty()))], BY).rows == {"shop.sales": 0}
    assert stored(lake).is_empty()


def test_a_query_reads_other_tables_of_the_lake(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2))], BY)
    lake.commit([ReplaceTable(STOCK, Query("SELECT day, store, units * 10 AS units FROM shop.sales"))], BY)

    assert_frame_equal(stored(lake, "shop.stock"), sales(MONDAY, 10, 20))


@pytest.mark.parametrize("sales_table", ["shop.sales", 'lake.shop."sales" AS old', "Shop.SALES"])
def test_a_query_cannot_replace_the_table_that_it_reads(sqlite_lake: Lakehouse, sales_table: str) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2))], BY)

    with pytest.raises(LakeError, match=r"cannot replace shop\.sales with rows read from it"):
        sqlite_lake.commit([ReplaceTable(SALES, Query(f"SELECT * FROM {sales_table}"))], BY)
    sqlite_lake.commit([Append(SALES, Query(f"SELECT * FROM {sales_table}"))], BY)
    assert stored(sqlite_lake)["units"].to_list() == [1, 1, 2, 2]


@pytest.mark.parametrize("form", [*INPUTS, "Query"])
def test_rows_of_another_shape_are_refused_with_every_difference(lake: Lakehouse, form: str) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    other = pl.DataFrame({"day": ["2017-03-06"], "shop": ["S0"], "units": [1.6]})
    rows = INPUTS[form](other) if form in INPUTS else Query("SELECT '2017-03-06' AS day, 'S0' AS shop, 1.6 AS units")

    with pytest.raises(LakeError) as refused:
        lake.commit([ReplaceTable(SALES, rows)], BY)
    for words in ("shop.sales", "column store", "is missing", "column shop is not", "column day is", "column units is"):
        assert words in str(refused.value)
    assert_frame_equal(stored(lake), sales(MONDAY, 1))


def test_a_missing_value_in_a_filled_column_is_refused(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)

    with pytest.raises(LakeError, match=r"could not write to shop\.sales: .*units"):
        lake.commit([Append(SALES, sales(MONDAY, 1).with_columns(units=pl.lit(None, pl.Int64)))], BY)
    assert_frame_equal(stored(lake), sales(MONDAY, 1))


def test_rows_outside_the_slices_are_refused(lake: Lakehouse) -> None:
    for slices in ([{"day": MONDAY}], []):
        with pytest.raises(LakeError, match=r"shop\.sales: 1 rows lie outside the slices"):
            lake.commit([ReplaceSlices(SALES, sales(TUESDAY, 1), slices)], BY)


def test_a_refused_row_is_shown_without_its_personal_values(sqlite_lake: Lakehouse) -> None:
    raw = TABLES["raw.pos_sales"]
    row = {"file_id": "a" * 64, "row_number": 7, "store_id": "S1", "customer_id": "C-4711"}
    stray = pl.DataFrame([row], schema=raw.polars_schema)
    with pytest.raises(LakeError) as refused:
        sqlite_lake.commit([ReplaceSlices(raw, stray, [{"file_id": "b" * 64}])], BY)
    assert "'row_number': 7" in str(refused.value)
    assert "C-4711" not in str(refused.value)


def test_several_tables_change_together_or_not_at_all(lake: Lakehouse) -> None:
    both = [ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, sales(MONDAY, 5))]
    before = lake.commit(both, BY)

    failing = Query("SELECT day, store, error('the source broke') AS units FROM shop.sales")
    typed = Query(f"SELECT day, store, units::BIGINT AS units FROM ({failing.sql})")
    with pytest.raises(LakeError, match=r"could not write to shop\.sales, shop\.stock: .*the source broke"):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, 99)), ReplaceTable(STOCK, typed)], BY)

    assert lake.snapshot_id() == before.snapshot_id
    assert_frame_equal(stored(lake), sales(MONDAY, 1))
    assert_frame_equal(stored(lake, "shop.stock"), sales(MONDAY, 5))


def test_a_table_may_be_written_twice_in_one_transaction(lake: Lakehouse) -> None:
    commit = lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), Append(SALES, sales(TUESDAY, 2, 3))], BY)

    assert commit.rows == {"shop.sales": 3}
    assert_frame_equal(stored(lake), pl.concat([sales(MONDAY, 1), sales(TUESDAY, 2, 3)]))


def test_what_a_transaction_has_written_is_replaced_by_what_it_writes_next(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(SALES, sales(MONDAY, 2))], BY)
    assert_frame_equal(stored(lake), sales(MONDAY, 2))
    days = [replace_days(sales(TUESDAY, 3), TUESDAY), replace_days(sales(TUESDAY, 4), TUESDAY)]
    lake.commit([ReplaceTable(SALES, SALES.empty()), *days], BY)
    assert_frame_equal(stored(lake), sales(TUESDAY, 4))


def test_a_source_that_breaks_in_the_middle_leaves_the_table_as_it_was(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)

    def break_down(frame: pl.DataFrame) -> pl.DataFrame:
        raise RuntimeError("the source broke")

    broken = sales(MONDAY, 5).lazy().map_batches(break_down, schema=SALES.polars_schema)
    with pytest.raises(LakeError, match="the source broke"):
        lake.commit([ReplaceTable(SALES, broken)], BY)
    assert_frame_equal(stored(lake), sales(MONDAY, 1))


def test_a_commit_can_be_traced_to_its_run_and_its_inputs(lake: Lakehouse) -> None:
    provenance = Provenance(
        "clean/sales", "run-7", code_version="3", partition="2017-03-06", inputs={"raw.pos_sales": 4}
    )
    commit = lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], provenance)

    latest = lake.snapshots().row(0, named=True)
    assert latest["snapshot_id"] == commit.snapshot_id
    assert latest["author"] == "run-7"
    assert latest["commit_message"] == "clean/sales [2017-03-06]"
    assert json.loads(latest["commit_extra_info"]) == {
        "asset": "clean/sales",
        "run_id": "run-7",
        "code_version": "3",
        "partition": "2017-03-06",
        "inputs": {"raw.pos_sales": 4},
    }


def test_the_parquet_files_are_compressed_with_zstd(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, *range(100)))], BY)

    pattern = lake.settings.lake_data / "shop" / "sales" / "*.parquet"
    with lake.connection() as connection:
        codecs = connection.execute("SELECT DISTINCT compression FROM parquet_metadata(?)", [str(pattern)]).fetchall()
    assert codecs == [("ZSTD",)]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (pl.List(pl.String()), ["a", "b"]),
        (pl.Datetime("us"), datetime(2017, 3, 6, 18, 22, 5, 123456)),
        (pl.Float32(), 0.25),
        (pl.Int16(), -7),
        (pl.Boolean(), True),
        (pl.String(), "Größe ' \" ; \x01 \n"),
    ],
    ids=str,
)
def test_every_type_of_the_contracts_comes_back_as_it_went_in(
    sqlite_lake: Lakehouse, dtype: pl.DataType, value: object
) -> None:
    table = make_table("shop.types", {"value": dtype}, nullable=["value"])
    frame = pl.DataFrame({"value": [value, None]}, schema=table.polars_schema)
    sqlite_lake.commit([ReplaceTable(table, frame)], BY)

    assert_frame_equal(sqlite_lake.read("shop.types"), frame, check_row_order=False)


def test_a_commit_says_how_far_it_has_come(lake: Lakehouse) -> None:
    before = lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY).snapshot_id
    steps: list[tuple[str, bool]] = []
    told = Lakehouse(lake.settings, on_step=lambda step: steps.append((step, lake.snapshot_id() > before)))
    told.commit([ReplaceTable(SALES, sales(MONDAY, 2))], BY)
    assert steps == [("inserted", False), ("synced", False), ("committed", True)]
