"""What was acknowledged is on disk, and a disk that takes no more leaves the lake as it was."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.lakehouse import Append, LakeError, Lakehouse, Query, ReplaceSlices, ReplaceTable
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, STOCK, TUESDAY, sales


def catalogued_files(lake: Lakehouse, table: str) -> set[Path]:
    schema, name = table.split(".")
    listed = lake.query(f"SELECT data_file FROM ducklake_list_files('lake', '{name}', schema => '{schema}')")
    return {Path(file) for file in listed["data_file"]}


def test_every_file_of_a_commit_and_its_folders_are_forced_to_disk_before_the_commit(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, STOCK.empty())], BY).snapshot_id
    forced: dict[Path, int] = {}
    really_fsync = os.fsync

    def recorded(descriptor: int) -> None:
        really_fsync(descriptor)
        forced[Path(f"/proc/self/fd/{descriptor}").readlink()] = lake.snapshot_id()

    monkeypatch.setattr(os, "fsync", recorded)
    # As another process: one that has forced the upper folders to disk need not do it again.
    Lakehouse(lake.settings).commit([Append(SALES, sales(TUESDAY, 2)), ReplaceTable(STOCK, sales(TUESDAY, 3))], BY)
    monkeypatch.undo()

    old = catalogued_files_at(lake, before)
    new = (catalogued_files(lake, "shop.sales") | catalogued_files(lake, "shop.stock")) - old
    folders = {lake.settings.lake_data / "shop" / "sales", lake.settings.lake_data / "shop" / "stock"}
    folders |= {lake.settings.lake_data / "shop", lake.settings.lake_data, lake.settings.home}
    assert len(new) == 2
    assert new | folders <= set(forced)
    assert {forced[path] for path in new | folders} == {before}


def catalogued_files_at(lake: Lakehouse, snapshot: int) -> set[Path]:
    sql = "SELECT data_file FROM ducklake_list_files('lake', 'sales', schema => 'shop')"
    return {Path(file) for file in lake.query(sql, at=snapshot)["data_file"]}


def test_delete_files_are_forced_to_disk_as_well(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2))], BY)
    forced: set[Path] = set()
    really_fsync = os.fsync

    def recorded(descriptor: int) -> None:
        really_fsync(descriptor)
        forced.add(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", recorded)
    lake.commit([ReplaceSlices(SALES, sales(MONDAY, 5), [{"day": MONDAY, "store": "S0"}])], BY)
    monkeypatch.undo()

    on_disk = set(lake.settings.lake_data.rglob("*.parquet"))
    assert any("delete" in path.name for path in on_disk)
    assert len(on_disk - forced) == 1  # the file of the first commit, which that commit forced


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


NOISE = Query("SELECT DATE '2017-03-06' AS day, md5(i::VARCHAR) AS store, i AS units FROM range(400_000) AS numbers(i)")


@pytest.mark.parametrize("form", ["query", "stream"])
def test_a_full_disk_fails_the_write_cleanly_and_the_next_one_works(lake: Lakehouse, form: str) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, sales(MONDAY, 5))], BY)
    before = lake.snapshot_id()
    noise = pl.DataFrame({"store": [os.urandom(16).hex() for _ in range(200_000)]}).select(
        day=pl.lit(MONDAY), store="store", units=pl.int_range(pl.len())
    )
    rows = NOISE if form == "query" else noise.to_arrow().to_reader()

    with file_size_limit(2_000_000), pytest.raises(LakeError, match=r"could not write to shop\.sales, shop\.stock: "):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, 9)), ReplaceTable(STOCK, rows)], BY)

    assert lake.snapshot_id() == before
    assert_frame_equal(lake.read("shop.sales"), sales(MONDAY, 1))
    lake.commit([ReplaceTable(SALES, sales(TUESDAY, 2)), ReplaceTable(STOCK, sales(TUESDAY, 6))], BY)
    assert_frame_equal(lake.read("shop.stock"), sales(TUESDAY, 6))
    assert not list((lake.settings.home / "spool").glob("*"))


def test_a_failed_write_leaves_no_file_behind(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, sales(MONDAY, 5))], BY)
    with file_size_limit(2_000_000), pytest.raises(LakeError):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, 9)), ReplaceTable(STOCK, NOISE)], BY)

    on_disk = set(lake.settings.lake_data.rglob("*.parquet"))
    assert on_disk == catalogued_files(lake, "shop.sales") | catalogued_files(lake, "shop.stock")


def test_a_data_folder_that_cannot_be_written_is_named(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    in_the_way = lake.settings.lake_data / "shop" / "stock"
    in_the_way.write_text("")

    with pytest.raises(LakeError, match=r"could not write to shop\.stock: .*shop/stock"):
        lake.commit([ReplaceTable(STOCK, sales(MONDAY, 1))], BY)
    in_the_way.unlink()
    lake.commit([ReplaceTable(STOCK, sales(MONDAY, 1))], BY)
    assert_frame_equal(lake.read("shop.stock"), sales(MONDAY, 1))
