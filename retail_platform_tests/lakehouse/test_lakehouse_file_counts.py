"""Counts that are remembered file by file are those of the rows, whatever became of the table since."""

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Append, LakeError, Lakehouse, ReplaceSlices, ReplaceTable, file_counts
from retail_platform.lakehouse.file_counts import counts_of, forget
from retail_platform.lakehouse.maintenance import maintain
from retail_platform_tests.lakehouse.shop import BY

WAIVERS = TABLES["quarantine.waivers"]
BY_DAY = ("feed", "partition_date")
FIRST = date(2017, 3, 6)


def rows(day: int, *numbers: int, feed: str = "pos_sales") -> pl.DataFrame:
    of_day = {"feed": feed, "file_id": "a" * 64, "partition_date": FIRST + timedelta(days=day), "audit_id": "1"}
    return pl.DataFrame([{**of_day, "row_number": number} for number in numbers], schema=WAIVERS.polars_schema)


def assert_counts_are_right(lake: Lakehouse) -> None:
    (found,) = counts_of(lake, [(WAIVERS.name, BY_DAY)])
    every_row = lake.query(f"SELECT feed, partition_date, count(*) AS rows FROM {WAIVERS.name} GROUP BY ALL")
    assert_frame_equal(found, every_row, check_row_order=False)


def memory_of(lake: Lakehouse) -> Path:
    (file,) = (lake.settings.home / "cache" / "counts").iterdir()
    return file


@pytest.fixture
def two_days(sqlite_lake: Lakehouse) -> Lakehouse:
    """A lake with two files of waivers, counted once."""
    sqlite_lake.commit([Append(WAIVERS, rows(0, 1, 2))], BY)
    sqlite_lake.commit([Append(WAIVERS, rows(1, 3))], BY)
    assert_counts_are_right(sqlite_lake)
    return sqlite_lake


def test_counts_follow_every_kind_of_change(lake: Lakehouse) -> None:
    lake.prepare()
    assert_counts_are_right(lake)
    lake.commit([Append(WAIVERS, pl.concat([rows(0, 1, 2, 3), rows(1, 1, 2), rows(1, 7, feed="inventory")]))], BY)
    assert_counts_are_right(lake)
    second_day = {"feed": "pos_sales", "partition_date": FIRST + timedelta(days=1)}
    lake.commit([ReplaceSlices(WAIVERS, rows(1, 9), [second_day])], BY)
    assert_counts_are_right(lake)
    lake.commit([ReplaceSlices(WAIVERS, WAIVERS.empty(), [{"feed": "inventory"}])], BY)
    assert_counts_are_right(lake)
    lake.commit([Append(WAIVERS, rows(0, 4))], BY)
    maintain(lake)
    assert_counts_are_right(lake)
    lake.commit([ReplaceTable(WAIVERS, WAIVERS.empty())], BY)
    assert_counts_are_right(lake)


def test_only_files_that_are_new_are_read(two_days: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[str]] = []
    counted_now = file_counts._counted_now

    def recorded(lake: Lakehouse, table: str, columns: tuple[str, ...], files: pl.DataFrame) -> pl.DataFrame:
        read.append(files["data_file"].to_list())
        return counted_now(lake, table, columns, files)

    monkeypatch.setattr(file_counts, "_counted_now", recorded)
    before = set((two_days.settings.lake_data / "quarantine" / "waivers").iterdir())
    two_days.commit([Append(WAIVERS, rows(2, 5))], BY)
    assert_counts_are_right(two_days)
    assert_counts_are_right(two_days)
    (new,) = set((two_days.settings.lake_data / "quarantine" / "waivers").iterdir()) - before
    assert read == [[str(new)]]


def test_a_memory_that_is_cut_off_or_wrong_is_made_anew(two_days: Lakehouse) -> None:
    file = memory_of(two_days)
    file.write_bytes(file.read_bytes()[:50])
    assert_counts_are_right(two_days)
    pl.read_parquet(file).with_columns(rows=pl.col("rows") + 1).write_parquet(file)
    assert_counts_are_right(two_days)
    forget(two_days.settings)
    assert_counts_are_right(two_days)


def test_counts_that_the_catalog_contradicts_are_not_given(
    two_days: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = file_counts._empty(WAIVERS.name, BY_DAY)
    monkeypatch.setattr(file_counts, "_counted_now", lambda *_: nothing)
    forget(two_days.settings)
    with pytest.raises(LakeError, match=r"0 rows were counted .* the catalog says 3; .*fsck"):
        counts_of(two_days, [(WAIVERS.name, BY_DAY)])


def test_more_new_files_than_a_statement_can_name_are_counted_all_at_once(
    two_days: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_counts, "MOST_FILES_BY_NAME", 1)
    forget(two_days.settings)
    assert_counts_are_right(two_days)
