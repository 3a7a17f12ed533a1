"""fsck finds whatever does not agree, and nothing else."""

import os
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Append, Lakehouse, ReplaceSlices, ReplaceTable
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
