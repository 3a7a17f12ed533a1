"""fsck finds whatever does not agree, and nothing else."""

import os
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Append, Lakehouse, ReplaceSlices, ReplaceTable, save_model
from retail_platform.lakehouse.catalog_copy import load_catalog, save_catalog
from retail_platform.lakehouse.fsck import fsck
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, TUESDAY, sales

FILE_ID = "a" * 64
AT = datetime(2017, 3, 7)


def raw_prices(rows: int) -> Append:
    table = TABLES["raw.prices"]
    frame = pl.DataFrame({"row_number": range(1, rows + 1)}).with_columns(
        file_id=pl.lit(FILE_ID), partition_date=pl.lit(date(2017, 3, 6)), ingested_at=pl.lit(AT, pl.Datetime("us"))
    )
    texts = [pl.lit("x").alias(name) for name in table.polars_schema if name not in frame.columns]
    return Append(table, frame.with_columns(texts).select(table.polars_schema.names()))


def ledger_row(rows: int) -> Append:
    table = TABLES["raw.ingested_files"]
    day = date(2017, 3, 6)
    row = {"file_id": FILE_ID, "feed": "prices", "file_name": "prices.csv", "bytes": 10, "rows": rows}
    row |= {"first_date": day, "last_date": day, "status": "ingested", "run_id": "run-1"}
    row |= {"file_modified_at": AT, "ingested_at": AT}
    return Append(table, pl.DataFrame([row], schema=table.polars_schema))


@pytest.fixture
def written(lake: Lakehouse) -> Lakehouse:
    """Files that were added, replaced and partly deleted, and one landing file of three rows."""
    lake.commit([ReplaceTable(SALES, pl.concat([sales(MONDAY, 1, 2), sales(TUESDAY, 3)]))], BY)
    lake.commit([ReplaceSlices(SALES, sales(MONDAY, 5), [{"day": MONDAY}])], BY)
    lake.commit([raw_prices(3), ledger_row(3)], BY)
    return lake


def a_file(lake: Lakehouse) -> Path:
    return min((lake.settings.lake_data / "shop" / "sales").rglob("*.parquet"))


def found(lake: Lakehouse) -> list[tuple[str, str]]:
    return [(finding.kind, finding.subject) for finding in fsck(lake, orphans_older_than=timedelta(hours=1))]


def test_a_sound_lake_has_no_finding(written: Lakehouse) -> None:
    assert fsck(written, orphans_older_than=timedelta(0)) == []


def test_a_file_that_is_gone_or_damaged_is_found(written: Lakehouse) -> None:
    file = a_file(written)
    whole = file.read_bytes()

    file.unlink()
    assert found(written) == [("file missing", "shop.sales")]
    file.write_bytes(whole[:-20])
    assert found(written) == [("file damaged", "shop.sales")]
    pl.DataFrame({"day": [MONDAY] * 99}).write_parquet(file)
    assert found(written) == [("file damaged", "shop.sales")]
    file.write_bytes(whole)
    assert found(written) == []


def test_a_file_that_no_snapshot_names_is_found_once_it_is_old(written: Lakehouse) -> None:
    orphan = a_file(written).with_name("orphan.parquet")
    orphan.write_bytes(b"half a file")
    assert found(written) == []

    os.utime(orphan, (0, 0))
    assert found(written) == [("file not catalogued", "shop.sales")]


def test_a_ledger_that_disagrees_with_the_raw_rows_is_found_either_way(written: Lakehouse) -> None:
    written.commit([raw_prices(1)], BY)
    assert [finding.message for finding in fsck(written)] == [
        f"landing file {FILE_ID}: the ledger says 3 rows, raw.prices holds 4; restore the lake from a backup"
    ]
    written.commit([ReplaceTable(TABLES["raw.prices"], TABLES["raw.prices"].empty())], BY)
    assert found(written) == [("ledger disagrees", "raw.prices")]


def test_a_value_that_turned_on_the_disk_is_found_by_reading_everything(sqlite_lake: Lakehouse) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, *range(2000)))], BY)
    file = a_file(sqlite_lake)
    content = bytearray(file.read_bytes())
    for place in range(20, 120):
        content[place] ^= 0xFF
    file.write_bytes(content)

    assert fsck(sqlite_lake) == []
    assert [finding.kind for finding in fsck(sqlite_lake, deep=True)] == ["file damaged"]


def test_a_catalog_older_than_its_files_and_files_older_than_their_catalog_are_found(sqlite_lake: Lakehouse) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    older = sqlite_lake.settings.home / "older"
    save_catalog(sqlite_lake.settings, older)
    sqlite_lake.commit([Append(SALES, sales(TUESDAY, 2))], BY)
    newest = max(sqlite_lake.settings.lake_data.rglob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    newer = sqlite_lake.settings.home / "newer"
    save_catalog(sqlite_lake.settings, newer)

    def put(catalog: Path) -> None:
        sqlite_lake.settings.catalog_file.unlink()
        load_catalog(sqlite_lake.settings, catalog)

    put(older)
    os.utime(newest, (0, 0))
    (finding,) = fsck(Lakehouse(sqlite_lake.settings))
    assert finding.kind == "file not catalogued"
    assert str(newest) in finding.message
    put(newer)
    assert fsck(Lakehouse(sqlite_lake.settings)) == []
    newest.unlink()
    (finding,) = fsck(Lakehouse(sqlite_lake.settings))
    assert finding.kind == "file missing"
    assert str(newest) in finding.message


def test_a_damaged_catalog_is_said_to_be_and_nothing_else_is_judged_by_it(sqlite_lake: Lakehouse) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    save_catalog(sqlite_lake.settings, copy := sqlite_lake.settings.home / "copy")
    content = bytearray(copy.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    for file in sqlite_lake.settings.home.glob("catalog.sqlite*"):
        file.unlink()
    sqlite_lake.settings.catalog_file.write_bytes(content)

    assert [finding.kind for finding in fsck(Lakehouse(sqlite_lake.settings))] == ["catalog damaged"]


def test_a_model_that_is_gone_or_altered_is_found(sqlite_lake: Lakehouse) -> None:
    models, table = sqlite_lake.settings.models, TABLES["model.registry"]
    rows = []
    for version in ("v1", "v2", "v3"):
        sha256 = save_model(models, version, {"model.txt": "tree"}, {"seed": 1})
        row = {"model_version": version, "shard": "all", "stage": "champion", "changed_at": AT, "changed_by": "run-1"}
        row |= {"reason": "", "trained_until": MONDAY, "folder": version, "lake_snapshot": 0}
        rows.append(row | {"manifest_sha256": "0" * 64 if version == "v3" else sha256})
    sqlite_lake.commit([Append(table, pl.DataFrame(rows, schema=table.polars_schema))], BY)
    (models / "v2" / "model.txt").write_text("twig")
    shutil.rmtree(models / "v1")

    findings = fsck(sqlite_lake)
    assert {finding.kind for finding in findings} == {"model damaged"}
    for version, finding in zip(("v1", "v2", "v3"), findings, strict=True):
        assert version in finding.message
    assert "is not the one that was registered" in findings[2].message
