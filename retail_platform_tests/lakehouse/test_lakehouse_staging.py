"""Parquet files that become files of a table as they are keep the write contract like any other rows."""

import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from retail_platform.lakehouse import (
    Append,
    LakeError,
    Lakehouse,
    ParquetFiles,
    ReplaceSlices,
    ReplaceTable,
    staging,
)
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, STOCK, TUESDAY, make_table, sales
from retail_platform_tests.lakehouse.test_lakehouse_concurrency import interfering
from retail_platform_tests.object_storage import ObjectStorage


def file_of(folder: Path, rows: pl.DataFrame, name: str = "rows") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.parquet"
    rows.write_parquet(file)
    return file


def files_of_table(lake: Lakehouse) -> list[Path]:
    return sorted((lake.settings.lake_data / "shop" / "sales").glob("*.parquet"))


def nothing_is_left_over(lake: Lakehouse) -> bool:
    return fsck(lake, orphans_older_than=timedelta(0), deep=True) == []


def test_files_become_files_of_the_table_without_a_copy_and_stay_where_they_were(lake: Lakehouse) -> None:
    files = [file_of(lake.settings.home, sales(day, 1, 2), str(day)) for day in (MONDAY, TUESDAY)]
    both = pl.concat([sales(MONDAY, 1, 2), sales(TUESDAY, 1, 2)])

    commit = lake.commit([Append(SALES, ParquetFiles(tuple(files)))], BY)

    assert commit.rows == {"shop.sales": 4}
    assert_frame_equal(lake.read("shop.sales"), both, check_row_order=False)
    assert {file.stat().st_ino for file in files_of_table(lake)} == {file.stat().st_ino for file in files}
    assert nothing_is_left_over(lake)


def test_they_are_changed_and_merged_like_the_tables_own(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2))], BY)
    lake.commit([Append(SALES, ParquetFiles((file_of(lake.settings.home, sales(TUESDAY, 3, 4)),)))], BY)
    with lake.connection(read_only=False) as connection:
        connection.execute("DELETE FROM shop.sales WHERE units = 3")
    maintain(lake)

    files = lake.query("FROM ducklake_list_files('lake', 'sales', schema => 'shop')")
    assert files.height == 1
    assert sorted(lake.read("shop.sales")["units"]) == [1, 2, 4]
    assert nothing_is_left_over(lake)


def test_a_conflict_is_tried_again_with_the_same_file_and_leaves_nothing_of_the_first_try(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, *range(10))), ReplaceTable(STOCK, STOCK.empty())], BY)
    file = file_of(lake.settings.home, sales(TUESDAY, 1))
    meanwhile = sales(TUESDAY, 9).lazy().map_batches(interfering(lake, 1), schema=STOCK.polars_schema)

    commit = lake.commit(
        [ReplaceTable(SALES, sales(MONDAY, 5)), Append(SALES, ParquetFiles((file,))), ReplaceTable(STOCK, meanwhile)],
        BY,
    )

    assert commit.attempts == 2
    assert sorted(lake.read("shop.sales")["units"]) == [1, 5]
    assert nothing_is_left_over(lake)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (sales(TUESDAY, 1).with_columns(units=pl.lit(None, pl.Int64)), "units is missing in some"),
        (sales(TUESDAY, 1).with_columns(pl.col("units").cast(pl.Int32)), "column units is INTEGER"),
        (sales(TUESDAY, 1).drop("store"), "column store"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_whole(sqlite_lake: Lakehouse, rows: pl.DataFrame, complaint: str) -> None:
    lake = sqlite_lake
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    good, bad = file_of(lake.settings.home, sales(TUESDAY, 7)), file_of(lake.settings.home, rows, "bad")

    with pytest.raises(LakeError, match=complaint):
        lake.commit([Append(SALES, ParquetFiles((good, bad)))], BY)
    assert_frame_equal(lake.read("shop.sales"), sales(MONDAY, 1))
    assert nothing_is_left_over(lake)


def test_files_on_another_disk_are_copied(sqlite_lake: Lakehouse, tmp_path: Path) -> None:
    others = (Path("/dev/shm"), Path("/tmp"), Path.cwd())  # noqa: S108
    other = next((place for place in others if place.exists() and place.stat().st_dev != tmp_path.stat().st_dev), None)
    if other is None:
        pytest.skip("every folder here lies on one disk")
    folder = other / f"take-over-{tmp_path.parent.name}"
    try:
        file = file_of(folder, sales(MONDAY, 1, 2))
        commit = sqlite_lake.commit([Append(SALES, ParquetFiles((file,)))], BY)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert commit.rows == {"shop.sales": 2}
    assert_frame_equal(sqlite_lake.read("shop.sales"), sales(MONDAY, 1, 2))
    assert nothing_is_left_over(sqlite_lake)


def test_in_object_storage_they_are_copied(object_storage: ObjectStorage, settings: Settings) -> None:
    lake = Lakehouse(object_storage.settings(settings))
    lake.commit([Append(SALES, ParquetFiles((file_of(settings.home, sales(MONDAY, 1, 2)),)))], BY)
    assert_frame_equal(lake.read("shop.sales"), sales(MONDAY, 1, 2))


MEASURES = make_table("shop.measures", {"day": pl.Date(), "store": pl.String(), "share": pl.Float64()})


def writers_of(lake: Lakehouse, table: str) -> set[str]:
    """The programs that wrote the files of a table."""
    files = (lake.settings.lake_data / table.replace(".", "/")).glob("*.parquet")
    return {pq.read_metadata(file).created_by.split()[0] for file in files}


def test_large_frames_are_written_by_polars_and_replace_their_slices_like_small_ones(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "ROWS_OF_A_LARGE_FRAME", 3)
    for units in ((1, 2, 3), (4, 5, 6, 7)):
        lake.commit([ReplaceSlices(SALES, sales(MONDAY, *units), [{"day": MONDAY}])], BY)
        assert_frame_equal(lake.read("shop.sales"), sales(MONDAY, *units), check_row_order=False)
    assert writers_of(lake, "shop.sales") == {"Polars"}
    assert nothing_is_left_over(lake)


@pytest.mark.parametrize("form", ["frame", "stream"])
def test_rows_with_a_nan_are_written_by_duckdb_and_found(
    sqlite_lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr(staging, "ROWS_OF_A_LARGE_FRAME", 3)
    frame = pl.DataFrame({"day": MONDAY, "store": ["S0", "S1", "S2"], "share": [1.0, float("nan"), 2.0]})
    sqlite_lake.commit([ReplaceTable(MEASURES, frame if form == "frame" else frame.to_arrow().to_reader())], BY)
    # To DuckDB a NaN is greater than every number.
    assert sqlite_lake.read("shop.measures", where="share > 5")["store"].to_list() == ["S1"]
