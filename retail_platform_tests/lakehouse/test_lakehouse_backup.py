"""A backup is one consistent snapshot, taken while others write; what is restored from it is that snapshot."""

import json
import os
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest

from retail_platform.lakehouse import LakeError, Lakehouse, ReplaceSlices, ReplaceTable, save_model
from retail_platform.lakehouse.backup import back_up, backups, restore, verify
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.settings import Settings
from retail_platform_tests.faults.worker import Order
from retail_platform_tests.faults.workers import workers
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, STOCK, TUESDAY, sales
from retail_platform_tests.object_storage import ObjectStorage
from retail_platform_tests.postgres import PostgresServer

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def elsewhere(settings: Settings, tmp_path: Path, **changes: object) -> Lakehouse:
    return Lakehouse(settings.model_copy(update={"home": tmp_path / f"restored-{uuid4().hex[:6]}", **changes}))


def content(lake: Lakehouse) -> dict[tuple[int, str], list[tuple[object, ...]]]:
    """The rows of every table at every snapshot."""
    found = {}
    for at in lake.snapshots()["snapshot_id"]:
        with lake.connection(at=at) as connection:
            sql = "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'lake'"
            for (name,) in connection.execute(sql).fetchall():
                found[at, name] = sorted(connection.execute(f"FROM {name}").fetchall(), key=str)
    return found


@pytest.fixture
def filled(lake: Lakehouse) -> Lakehouse:
    """Files added, replaced, partly deleted, merged; a model; a key."""
    lake.commit([ReplaceTable(SALES, pl.concat([sales(MONDAY, 1, 2), sales(TUESDAY, 3)]))], BY)
    lake.commit([ReplaceSlices(SALES, sales(MONDAY, 5), [{"day": MONDAY}])], BY)
    maintain(lake)
    lake.commit([ReplaceSlices(SALES, sales(TUESDAY, 7), [{"day": TUESDAY}])], BY)
    save_model(lake.settings.models, "v1", {"model.txt": "tree"}, {"seed": 1})
    (lake.settings.home / "customer.key").write_bytes(b"k" * 32)
    return lake


def test_a_lake_restored_onto_the_other_catalog_has_every_row_of_every_snapshot_and_goes_on(
    filled: Lakehouse, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    before = content(filled)
    made = back_up(filled, tmp_path / "backup")
    assert made.snapshot == filled.snapshot_id()
    assert made.secrets == ("customer.key",)

    on_postgres = filled.settings.catalog != "sqlite"
    catalog = "sqlite" if on_postgres else postgres_server.new_database(f"restored_{uuid4().hex}")
    restored = elsewhere(filled.settings, tmp_path, catalog=catalog)
    report = restore(restored, tmp_path / "backup")

    assert (report.name, report.snapshot, report.findings) == (made.name, made.snapshot, ())
    assert content(restored) == before
    assert fsck(restored, orphans_older_than=timedelta(0), deep=True) == []
    assert (restored.settings.models / "v1" / "model.txt").read_text() == "tree"
    key = restored.settings.home / "customer.key"
    assert key.read_bytes() == b"k" * 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    restored.commit([ReplaceTable(SALES, sales(MONDAY, 9))], BY)
    assert restored.snapshot_id() == made.snapshot + 1
    maintain(restored)
    assert fsck(restored, orphans_older_than=timedelta(0)) == []


def test_a_backup_beside_a_writer_is_one_of_its_snapshots(lake: Lakehouse, tmp_path: Path) -> None:
    for table in (SALES, STOCK):
        lake.commit([ReplaceTable(table, table.empty())], BY)
    with workers() as begin:
        writer = begin(Order(home=str(lake.settings.home), catalog=lake.settings.catalog, job="replace slices"))
        writer.await_acknowledged(3)
        made = back_up(lake, tmp_path / "backup")
        while writer.is_running and lake.snapshot_id() < made.snapshot + 2:
            time.sleep(0.02)

    restored = elsewhere(lake.settings, tmp_path, catalog="sqlite")
    assert restore(restored, tmp_path / "backup").findings == ()
    assert restored.snapshot_id() == made.snapshot < lake.snapshot_id()
    for table in ("shop.sales", "shop.stock"):
        then = lake.read(table, at=made.snapshot)
        assert then.height >= 60
        assert sorted(restored.read(table).rows()) == sorted(then.rows())


def test_what_an_earlier_backup_has_is_not_copied_again(sqlite_lake: Lakehouse, tmp_path: Path) -> None:
    place = tmp_path / "backup"
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    first = back_up(sqlite_lake, place, now=NOW)
    sqlite_lake.commit([ReplaceTable(STOCK, sales(MONDAY, 1))], BY)
    second = back_up(sqlite_lake, place, now=NOW + timedelta(hours=1))

    assert (first.files_copied, second.files_copied) == (1, 1)
    assert second.files == first.files + 1
    assert backups(place) == [first.name, second.name] == ["20260101T000000Z", "20260101T010000Z"]
    earlier = elsewhere(sqlite_lake.settings, tmp_path)
    restore(earlier, place, name=first.name)
    assert earlier.snapshot_id() == first.snapshot
    with pytest.raises(LakeError, match="there is a backup 20260101T000000Z"):
        back_up(sqlite_lake, place, now=NOW)


def test_a_damaged_or_unfinished_backup_is_refused_before_anything_is_written(
    sqlite_lake: Lakehouse, tmp_path: Path
) -> None:
    place = tmp_path / "backup"
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, sales(MONDAY, 2))], BY)
    save_model(sqlite_lake.settings.models, "v1", {"model.txt": "tree"}, {"seed": 1})
    made = back_up(sqlite_lake, place)
    assert verify(place)[0] == made.name
    target = elsewhere(sqlite_lake.settings, tmp_path)

    flipped, gone = sorted((place / "files").rglob("*.parquet"))
    content = bytearray(flipped.read_bytes())
    content[10] ^= 1
    flipped.write_bytes(content)
    gone.unlink()
    (place / "models" / "v1" / "model.txt").write_text("twig")
    with pytest.raises(LakeError) as refused:
        restore(target, place)
    for name, what in ((flipped.name, "is not the file"), (gone.name, "is missing"), ("model.txt", "is not the file")):
        assert f"{name} {what}" in str(refused.value)
    assert not target.settings.home.exists()

    (place / "backups" / made.name / "manifest.json").unlink()
    with pytest.raises(LakeError, match="no finished backup; there is none"):
        restore(target, place)


def test_a_manifest_that_leads_out_of_the_backup_is_refused(sqlite_lake: Lakehouse, tmp_path: Path) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    made = back_up(sqlite_lake, tmp_path / "backup")
    file = tmp_path / "backup" / "backups" / made.name / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["data"] = {"../../customer.key": {"bytes": 0, "sha256": "0" * 64}}
    file.write_text(json.dumps(manifest))
    with pytest.raises(LakeError, match="leads out of the backup"):
        verify(tmp_path / "backup")


def test_a_damaged_lake_is_not_backed_up(sqlite_lake: Lakehouse, tmp_path: Path) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1)), ReplaceTable(STOCK, sales(MONDAY, 2))], BY)
    gone, short = sorted(sqlite_lake.settings.lake_data.rglob("*.parquet"))
    gone.unlink()
    short.write_bytes(b"PAR1")
    with pytest.raises(LakeError, match="the lake is damaged") as refused:
        back_up(sqlite_lake, tmp_path / "backup")
    assert f"{gone} is missing" in str(refused.value)
    assert f"{short} has another size" in str(refused.value)
    assert backups(tmp_path / "backup") == []


def test_a_lake_that_is_there_is_refused_or_with_force_set_aside_and_kept(lake: Lakehouse, tmp_path: Path) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    (lake.settings.home / "customer.key").write_bytes(b"a")
    back_up(lake, tmp_path / "backup")
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 2))], BY)
    (lake.settings.home / "customer.key").write_bytes(b"b")
    newer = lake.snapshot_id()

    with pytest.raises(LakeError, match="there is a lake"):
        restore(lake, tmp_path / "backup")
    assert lake.read("shop.sales")["units"].to_list() == [2]

    report = restore(lake, tmp_path / "backup", force=True)
    restored = Lakehouse(lake.settings)
    assert report.findings == ()
    assert restored.read("shop.sales")["units"].to_list() == [1]
    assert (lake.settings.home / "customer.key").read_bytes() == b"a"
    aside = Path(report.set_aside)
    assert (aside / "customer.key").read_bytes() == b"b"
    if lake.settings.catalog == "sqlite":
        kept = Lakehouse(lake.settings.model_copy(update={"home": aside}))
        assert kept.read("shop.sales", at=newer)["units"].to_list() == [2]


def test_secrets_are_for_their_owner_and_can_be_left_out(sqlite_lake: Lakehouse, tmp_path: Path) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    (sqlite_lake.settings.home / "customer.key").write_bytes(b"a")
    with_key = back_up(sqlite_lake, tmp_path / "with", now=NOW)
    without = back_up(sqlite_lake, tmp_path / "without", secrets=False, now=NOW)

    own = tmp_path / "with" / "backups" / with_key.name
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in own.iterdir() if file.name != "manifest.json"} == {0o600}
    assert (with_key.secrets, without.secrets) == (("customer.key",), ())
    assert not list((tmp_path / "without").rglob("customer.key"))


def test_a_backup_within_the_home_is_refused(sqlite_lake: Lakehouse) -> None:
    with pytest.raises(LakeError, match="choose another disk"):
        back_up(sqlite_lake, sqlite_lake.settings.home / "backup")


def test_a_lake_moves_into_object_storage_and_back(
    sqlite_lake: Lakehouse, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2))], BY)
    sqlite_lake.commit([ReplaceSlices(SALES, sales(MONDAY, 5), [{"day": MONDAY, "store": "S0"}])], BY)
    before = content(sqlite_lake)
    back_up(sqlite_lake, tmp_path / "there")

    moved = elsewhere(object_storage.settings(sqlite_lake.settings), tmp_path)
    assert restore(moved, tmp_path / "there").findings == ()
    assert content(moved) == before
    moved.commit([ReplaceTable(STOCK, sales(MONDAY, 1))], BY)
    after = content(moved)
    back_up(moved, tmp_path / "back")
    returned = elsewhere(sqlite_lake.settings, tmp_path)
    assert restore(returned, tmp_path / "back").findings == ()
    assert content(returned) == after


def test_a_restore_that_was_killed_leaves_no_lake_and_can_be_repeated(sqlite_lake: Lakehouse, tmp_path: Path) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    back_up(sqlite_lake, tmp_path / "backup")
    target = elsewhere(sqlite_lake.settings, tmp_path)
    code = (
        "import os, sys; from pathlib import Path; import retail_platform.lakehouse.backup as backup;"
        "from retail_platform.lakehouse import Lakehouse; from retail_platform.settings import Settings;"
        "backup.load_catalog = lambda *_: os.kill(os.getpid(), 9);"
        "backup.restore(Lakehouse(Settings(home=Path(sys.argv[1]))), Path(sys.argv[2]))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(target.settings.home), str(tmp_path / "backup")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert killed.returncode == -9
    assert not target.settings.catalog_file.exists()
    assert restore(target, tmp_path / "backup").findings == ()
    assert target.read("shop.sales")["units"].to_list() == [1]
