"""Readers see one committed state, never wait, and cannot change anything."""

import os
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retail_platform.lakehouse import Append, LakeError, Lakehouse, Query, ReplaceTable
from retail_platform.lakehouse.backup import back_up
from retail_platform.lakehouse.catalog_copy import save_catalog
from retail_platform.lakehouse.connection import NoLakeError
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, STOCK, TUESDAY, counting_lake, make_table, sales


def test_a_snapshot_stays_readable_after_later_writes(lake: Lakehouse) -> None:
    first = lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY).snapshot_id
    lake.commit([ReplaceTable(SALES, sales(TUESDAY, 2, 3))], BY)
    wider = make_table("shop.sales", {**dict(SALES.polars_schema), "note": pl.String()}, nullable=["note"])
    lake.commit([Append(wider, wider.empty())], BY)

    assert_frame_equal(lake.read("shop.sales", at=first), sales(MONDAY, 1))
    assert lake.query("SELECT sum(units) AS units FROM shop.sales", at=first).item() == 1
    assert lake.read("shop.sales").height == 2


def test_a_snapshot_that_never_was_is_named(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)

    with pytest.raises(LakeError, match="there is no snapshot 999"):
        lake.read("shop.sales", at=999)


def test_a_reader_beside_an_open_write_sees_the_old_rows_at_once(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    lake.commit([ReplaceTable(STOCK, STOCK.empty())], BY)
    seen: list[pl.DataFrame] = []

    def look(frame: pl.DataFrame) -> pl.DataFrame:
        # Runs while the transaction stands open: the rows of shop.sales are already replaced in it.
        seen.append(lake.read("shop.sales"))
        return frame

    slow = sales(MONDAY, 5).lazy().map_batches(look, schema=SALES.polars_schema)
    lake.commit([ReplaceTable(SALES, sales(TUESDAY, 2, 3)), ReplaceTable(STOCK, slow)], BY)

    assert len(seen) == 1
    assert_frame_equal(seen[0], sales(MONDAY, 1))
    assert_frame_equal(lake.read("shop.sales"), sales(TUESDAY, 2, 3))


def test_reading_selects_columns_and_rows(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2, 3))], BY)

    found = lake.read("shop.sales", columns=["units"], where="store >= ? AND day = ?", parameters=["S1", MONDAY])
    assert sorted(found["units"]) == [2, 3]
    assert found.columns == ["units"]


def test_a_table_can_be_read_as_a_stream(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, *range(5000)))], BY)

    with lake.read_batches("shop.sales", columns=["units"], where="units >= 10", batch_rows=2048) as batches:
        sizes = [batch.num_rows for batch in batches]
    assert sum(sizes) == 4990
    assert len(sizes) > 1


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM shop.sales",
        "DROP TABLE shop.sales",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "ATTACH 'sqlite:{folder}/other.sqlite'",
        "SET threads = 1",
        "SELECT 1; DELETE FROM shop.sales",
        "SELECT * FROM read_text('{folder}/secret.txt')",
        "",
        "SELEC 1",
        "SELECT nothing FROM shop.sales",
    ],
)
def test_a_query_only_reads_and_only_the_lake(sqlite_lake: Lakehouse, tmp_path: Path, sql: str) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    (tmp_path / "secret.txt").write_text("secret")
    before = {path.name for path in tmp_path.iterdir()}

    with pytest.raises(LakeError):
        sqlite_lake.query(sql.format(folder=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == before
    assert sqlite_lake.read("shop.sales").height == 1


@pytest.mark.parametrize(
    "sql", ["SHOW ALL TABLES", "DESCRIBE shop.sales", "SUMMARIZE shop.sales", "EXPLAIN FROM shop.sales"]
)
def test_a_query_may_ask_about_the_lake(sqlite_lake: Lakehouse, sql: str) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)

    assert sqlite_lake.query(sql).height >= 1


def test_a_read_only_connection_refuses_writes(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)

    with lake.connection() as connection, pytest.raises(Exception, match="read-only"):
        connection.execute("DELETE FROM shop.sales")


def test_reading_before_anything_was_written_names_the_remedy(lake_settings: Settings) -> None:
    with pytest.raises(NoLakeError, match="retail-platform demo"):
        Lakehouse(lake_settings).read("shop.sales")
    assert not lake_settings.home.exists()


def test_a_lake_can_be_moved_with_its_folder(settings: Settings, tmp_path: Path) -> None:
    Lakehouse(settings).commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    settings.home.rename(tmp_path / "moved")
    moved = Lakehouse(settings.model_copy(update={"home": tmp_path / "moved"}))

    assert_frame_equal(moved.read("shop.sales"), sales(MONDAY, 1))
    moved.commit([Append(SALES, sales(TUESDAY, 2))], BY)
    assert moved.read("shop.sales").height == 2


def test_large_results_spill_into_the_home_folder_and_nowhere_else(settings: Settings) -> None:
    lake = Lakehouse(settings.model_copy(update={"lake": settings.lake.model_copy(update={"memory_limit": "60MB"})}))
    rows = Query("SELECT DATE '2017-03-06' AS day, 'S' || i AS store, i AS units FROM range(2_000_000) AS numbers(i)")
    lake.commit([ReplaceTable(SALES, rows)], BY)

    ordered = lake.query("SELECT units FROM (FROM shop.sales ORDER BY hash(store)) LIMIT 1 OFFSET 1_999_999")
    assert ordered.height == 1


def test_reads_share_one_connection_and_still_see_what_others_commit(lake: Lakehouse) -> None:
    reading, opened = counting_lake(lake.settings)
    for units in (1, 2, 3):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, units))], BY)
        assert reading.read("shop.sales")["units"].to_list() == [units]
    assert len(opened) == 1


def test_threads_may_read_at_once(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, *range(100)))], BY)
    with ThreadPoolExecutor(8) as threads:
        sums = threads.map(lambda _: lake.query("SELECT sum(units) FROM shop.sales").item(), range(40))
    assert set(sums) == {sum(range(100))}


def test_a_catalog_that_was_replaced_by_another_is_read_anew(sqlite_lake: Lakehouse, tmp_path: Path) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    assert sqlite_lake.read("shop.sales").height == 1
    other = Lakehouse(sqlite_lake.settings.model_copy(update={"home": tmp_path / "other"}))
    other.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2, 3))], BY)

    home = sqlite_lake.settings.home
    shutil.rmtree(home)
    shutil.move(other.settings.home, home)
    assert sqlite_lake.read("shop.sales").height == 3


def test_the_lake_can_be_read_as_of_a_time(lake: Lakehouse) -> None:
    for number in range(3):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, number))], BY)
    times = dict(lake.snapshots().select("snapshot_id", "snapshot_time").iter_rows())
    written = {at: lake.read("shop.sales", at=at)["units"].to_list() for at in (1, 2, 3)}
    assert written == {1: [0], 2: [1], 3: [2]}

    for number, moment in times.items():
        if number:
            assert lake.read("shop.sales", at=moment)["units"].to_list() == written[number]
    between = times[2] + (times[3] - times[2]) / 2
    assert lake.read("shop.sales", at=between)["units"].to_list() == written[2]
    assert lake.read("shop.sales", at=times[3] + timedelta(days=999))["units"].to_list() == written[3]
    berlin = between.replace(tzinfo=UTC).astimezone(timezone(timedelta(hours=1)))
    assert lake.read("shop.sales", at=berlin)["units"].to_list() == written[2]
    with pytest.raises(LakeError, match="older than the lake; the next that can be read is snapshot 0"):
        lake.read("shop.sales", at=times[0] - timedelta(seconds=1))


def test_a_time_whose_state_may_have_expired_shows_no_older_state_in_its_place(sqlite_lake: Lakehouse) -> None:
    for number in range(4):
        sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, number))], BY)
    times = dict(sqlite_lake.snapshots().select("snapshot_id", "snapshot_time").iter_rows())
    with sqlite_lake.connection(read_only=False) as connection:
        connection.execute("CALL ducklake_expire_snapshots('lake', versions => [2])")

    assert sqlite_lake.read("shop.sales", at=1)["units"].to_list() == [0]
    with pytest.raises(LakeError, match=r"has expired.*the next that can be read is snapshot 3"):
        sqlite_lake.read("shop.sales", at=times[2])
    assert sqlite_lake.read("shop.sales", at=times[3])["units"].to_list() == [2]
    assert sqlite_lake.snapshots(limit=2)["snapshot_id"].to_list() == [4, 3]


def test_a_catalog_of_another_format_is_refused_and_stays_as_it_is(sqlite_lake: Lakehouse) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    with closing(sqlite3.connect(sqlite_lake.settings.catalog_file)) as catalog:
        catalog.execute("UPDATE ducklake_metadata SET value = '0.3' WHERE key = 'version'")
        catalog.commit()

    other = Lakehouse(sqlite_lake.settings)
    for action in (lambda: other.read("shop.sales"), lambda: other.commit([Append(SALES, sales(MONDAY, 2))], BY)):
        with pytest.raises(
            LakeError, match=r"catalog version is 0\.3, but the extension requires version 1\.0\. Nothing"
        ):
            action()
    with closing(sqlite3.connect(sqlite_lake.settings.catalog_file)) as catalog:
        version = catalog.execute("SELECT value FROM ducklake_metadata WHERE key = 'version'").fetchone()
    assert version == ("0.3",)


def locks_on_the_catalog(lake: Lakehouse) -> set[tuple[str, str]]:
    """The locks of this process on the files of a SQLite catalog: the file and the place in it."""
    names = {file.stat().st_ino: file.name for file in lake.settings.home.glob("catalog.sqlite*")}
    listed = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "POSIX" in line]
    return {
        (names[int(words[-3].split(":")[2])], words[-2])
        for words in listed
        if words[-4] == str(os.getpid()) and int(words[-3].split(":")[2]) in names
    }


def test_nothing_takes_away_the_locks_by_which_sqlite_keeps_others_from_the_catalogs_log(
    sqlite_lake: Lakehouse, tmp_path: Path
) -> None:
    """Without them another process that closes the catalog removes the log under this one."""
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    assert locks_on_the_catalog(sqlite_lake) == set()  # at rest nothing is open, and there is no log
    with sqlite_lake.connection() as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM shop.sales").fetchall()
        held = locks_on_the_catalog(sqlite_lake)
        assert {name for name, _ in held} == {"catalog.sqlite", "catalog.sqlite-shm"}

        sqlite_lake.read("shop.sales")
        sqlite_lake.snapshots()
        assert fsck(sqlite_lake) == []
        save_catalog(sqlite_lake.settings, tmp_path / "copy.sqlite")
        maintain(sqlite_lake)
        back_up(sqlite_lake, tmp_path / "backup")
        assert held <= locks_on_the_catalog(sqlite_lake)
