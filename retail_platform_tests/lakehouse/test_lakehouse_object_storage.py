"""The lake with its files in S3-compatible storage: the same promises as in a folder."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.doctor import _object_storage
from retail_platform.lakehouse import Append, LakeError, Lakehouse, ReplaceSlices, ReplaceTable
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.storage import DataFiles
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, TUESDAY, sales
from retail_platform_tests.object_storage import SECRET, ObjectStorage


def two_days(settings: Settings) -> Lakehouse:
    """A lake that holds two days, one of them replaced."""
    lake = Lakehouse(settings)
    lake.commit([ReplaceTable(SALES, pl.concat([sales(MONDAY, 1, 2), sales(TUESDAY, 3)]))], BY)
    lake.commit([ReplaceSlices(SALES, sales(MONDAY, 5), [{"day": MONDAY}])], BY)
    return lake


@pytest.fixture
def lake(object_storage: ObjectStorage, settings: Settings) -> Lakehouse:
    return two_days(object_storage.settings(settings))


def test_what_was_written_is_read_now_and_as_of_an_earlier_snapshot_and_no_file_lies_in_the_home(
    object_storage: ObjectStorage, lake_settings: Settings
) -> None:
    lake = two_days(object_storage.settings(lake_settings))
    first = lake.snapshot_id() - 1

    assert sorted(lake.read("shop.sales")["units"]) == [3, 5]
    assert sorted(lake.read("shop.sales", at=first)["units"]) == [1, 2, 3]
    assert len(DataFiles(lake.settings).listing()) == 3
    assert list(lake.settings.home.rglob("*.parquet")) == []


def test_a_failed_write_leaves_the_lake_as_it_was_and_a_stream_is_written_whole(lake: Lakehouse) -> None:
    broken = sales(MONDAY, 1).lazy().map_batches(lambda _: 1 / 0, schema=SALES.polars_schema)  # type: ignore[arg-type]
    before = lake.snapshot_id()
    with pytest.raises(Exception, match="division by zero"):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, 9)), Append(SALES, broken)], BY)
    assert lake.snapshot_id() == before

    rows = sales(TUESDAY, *range(500))
    lake.commit([ReplaceTable(SALES, rows.to_arrow().to_reader(max_chunksize=7))], BY)
    assert_frame_equal(lake.read("shop.sales"), rows, check_row_order=False)


def test_fsck_finds_a_file_that_is_gone_damaged_or_left_over(lake: Lakehouse, tmp_path: Path) -> None:
    files = DataFiles(lake.settings)
    assert fsck(lake, orphans_older_than=timedelta(0), deep=True) == []
    victim, stray = min(files.listing()), "shop/sales/stray.parquet"
    with files.open(victim) as source:
        whole = source.read()
    part = tmp_path / "part"

    files.remove(victim)
    assert [finding.kind for finding in fsck(lake)] == ["file missing"]
    part.write_bytes(whole[:-20])
    with part.open("rb") as content:
        files.write(victim, content)
    assert [finding.kind for finding in fsck(lake)] == ["file damaged"]
    part.write_bytes(whole)
    with part.open("rb") as content:
        files.write(victim, content)
    with part.open("rb") as content:
        files.write(stray, content)
    found = fsck(lake, orphans_older_than=timedelta(seconds=-2))
    assert [(finding.kind, finding.subject) for finding in found] == [("file not catalogued", "shop.sales")]
    assert files.address(stray) in found[0].message


def test_a_storage_that_does_not_answer_is_named_without_its_secret(lake: Lakehouse) -> None:
    unreachable = lake.settings.lake.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    settings = lake.settings.model_copy(update={"lake": unreachable})
    for action in (lambda: DataFiles(settings).listing(), lambda: Lakehouse(settings).read("shop.sales")):
        with pytest.raises(LakeError, match=r"127\.0\.0\.1:9") as refused:
            action()
        assert SECRET not in str(refused.value)


def test_the_secret_cannot_be_read_with_sql(lake: Lakehouse) -> None:
    for source in ("duckdb_secrets()", "duckdb_settings()", "ducklake_options('lake')"):
        assert SECRET not in str(lake.query(f"SELECT * FROM {source}").rows()), source


def test_only_the_lakes_own_prefix_can_be_read_with_sql(lake: Lakehouse) -> None:
    bucket = lake.settings.data_location.rpartition("/")[0]
    with pytest.raises(LakeError, match="disabled by configuration"):
        lake.query(f"SELECT * FROM read_parquet('{bucket}/other/x.parquet')")


def test_a_data_location_that_was_forgotten_is_refused_before_anything_is_written(lake: Lakehouse) -> None:
    forgotten = Lakehouse(lake.settings.model_copy(update={"lake": type(lake.settings.lake)()}))

    with pytest.raises(LakeError, match=r"lake\.data"):
        forgotten.commit([Append(SALES, sales(TUESDAY, 1))], BY)
    assert lake.read("shop.sales").height == 2


def test_doctor_tells_whether_the_storage_answers(object_storage: ObjectStorage, settings: Settings) -> None:
    there = object_storage.settings(settings)
    assert _object_storage(there).fine

    for wrong in ({"data": "s3://no-such-bucket/lake"}, {"s3_endpoint": "http://127.0.0.1:9"}):
        finding = _object_storage(object_storage.settings(settings, **wrong))
        assert not finding.fine
        assert "lake.s3_endpoint" in finding.remedy
