"""Whether the lake is sound: catalog, files, ledger and models must agree.

Here: `fsck`, which looks and changes nothing. Not here: the remedy, which depends on what is lost
(`maintenance.py`, `backup.py`).
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from retail_platform.contracts.feeds import FEEDS
from retail_platform.lakehouse import ddl
from retail_platform.lakehouse.connection import CATALOG, LakeError, ask_sqlite
from retail_platform.lakehouse.lakehouse import Lakehouse
from retail_platform.lakehouse.model_store import load_model, manifest_sha256
from retail_platform.lakehouse.storage import DataFiles, StoredFile
from retail_platform.settings import Settings

_PARALLEL_READS = 8


@dataclass(frozen=True)
class CataloguedFile:
    """What the catalog says of a data file or delete file."""

    table: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class Finding:
    """Something in the lake that does not agree, with the remedy in its message."""

    kind: Literal[
        "catalog damaged",
        "file missing",
        "file damaged",
        "file not catalogued",
        "ledger disagrees",
        "model damaged",
    ]
    subject: str
    message: str


def fsck(lake: Lakehouse, *, orphans_older_than: timedelta = timedelta(days=1), deep: bool = False) -> list[Finding]:
    """Every disagreement between catalog, data files, ledger and models; empty where all is well.

    Files of every snapshot that is kept are checked, not only those of the present one: that each is there, has its
    size and its rows; `deep` reads every value as well. A file that the catalog does not name may belong to a write
    that is still under way, and counts only when it is old enough.
    """
    damaged = list(_check_catalog(lake.settings))
    if damaged:
        return damaged
    with lake.connection() as connection:
        catalogued = catalogued_files(connection)
        awaiting_removal = files_awaiting_removal(connection)
        ledger = list(_check_ledger(connection))
        models = list(_check_models(connection, lake.settings))
    files = DataFiles(lake.settings)
    stored = files.listing()
    orphans = old_orphans(stored, {*catalogued, *awaiting_removal}, datetime.now(UTC) - orphans_older_than)
    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        checked = pool.map(
            lambda path: _check_file(files, path, catalogued[path], stored.get(path), deep=deep), catalogued
        )
        return [
            *(finding for findings in checked for finding in findings),
            *(_orphan(files, path) for path in orphans),
            *ledger,
            *models,
        ]


def catalogued_files(connection: duckdb.DuckDBPyConnection) -> dict[str, CataloguedFile]:
    """Every file that a snapshot of the lake still needs, by its path below the root of the data files."""
    rows = connection.execute(files_of_every_snapshot(f"{CATALOG}.")).fetchall()
    return {path: CataloguedFile(table, count, size) for path, table, count, size in rows}


def files_of_every_snapshot(catalog: str = "") -> str:
    """The statement, for DuckDB and SQLite, that lists path, table, rows and bytes of every file that is needed."""
    return f"""
        SELECT CASE WHEN f.path_is_relative THEN s.path || t.path || f.path ELSE f.path END AS path,
               s.schema_name || '.' || t.table_name AS name, f.rows, f.bytes
        FROM (
            SELECT table_id, path, path_is_relative, record_count AS rows, file_size_bytes AS bytes
            FROM {catalog}ducklake_data_file
            UNION ALL
            SELECT table_id, path, path_is_relative, delete_count, file_size_bytes FROM {catalog}ducklake_delete_file
        ) AS f
        JOIN {catalog}ducklake_table AS t USING (table_id)
        JOIN {catalog}ducklake_schema AS s USING (schema_id)
        ORDER BY name, path
    """


def files_awaiting_removal(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Files that no snapshot needs any more, and that maintenance has not removed yet."""
    rows = connection.execute(f"SELECT path FROM {CATALOG}.ducklake_files_scheduled_for_deletion").fetchall()
    return {path for (path,) in rows}


def old_orphans(stored: Mapping[str, StoredFile], known: AbstractSet[str], before: datetime) -> list[str]:
    """Files that lie there, are not known, and are too old to belong to a write that is under way."""
    return sorted(path for path, file in stored.items() if path not in known and file.modified < before)


def _check_catalog(settings: Settings) -> Iterator[Finding]:
    if settings.catalog != "sqlite" or not settings.catalog_file.is_file():
        return
    try:
        found = ask_sqlite("check", settings.catalog_file).splitlines()
    except LakeError as error:
        found = [str(error)]
    if found != ["ok"]:
        message = f"{settings.catalog_file} is damaged: {'; '.join(found)}; restore the lake from a backup"
        yield Finding("catalog damaged", "catalog", message)


def _check_file(
    files: DataFiles, path: str, expected: CataloguedFile, stored: StoredFile | None, *, deep: bool
) -> list[Finding]:
    address, table = files.address(path), expected.table
    remedy = f"restore it from a backup, or rebuild the part of {table} that it held"
    if stored is None:
        return [Finding("file missing", table, f"{address} is in the catalog and not in the storage; {remedy}")]
    if stored.bytes != expected.bytes:
        message = f"{address} has {stored.bytes} bytes, the catalog says {expected.bytes}; {remedy}"
        return [Finding("file damaged", table, message)]
    try:
        rows = _count_rows(files, path, deep=deep)
    except (OSError, pa.ArrowException) as error:
        return [Finding("file damaged", table, f"{address} cannot be read: {error}; {remedy}")]
    if rows != expected.rows:
        message = f"{address} holds {rows} rows, the catalog says {expected.rows}; {remedy}"
        return [Finding("file damaged", table, message)]
    return []


def _count_rows(files: DataFiles, path: str, *, deep: bool) -> int:
    with files.open(path) as source, pq.ParquetFile(source) as parquet:
        if deep:
            return sum(batch.num_rows for batch in parquet.iter_batches())
        return int(parquet.metadata.num_rows)


def _orphan(files: DataFiles, path: str) -> Finding:
    message = (
        f"{files.address(path)} belongs to no snapshot: a killed write left it, or the catalog is older than its "
        "files; if the catalog was put back by hand, restore the lake from a backup, else `lake maintain` removes it"
    )
    return Finding("file not catalogued", ".".join(path.split("/")[:2]), message)


def _check_ledger(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Every file of the ledger has its rows in the raw table of its feed, and no other rows are there."""
    if not ddl.lake_columns(connection, "raw.ingested_files"):
        return
    for feed in FEEDS.values():
        if not ddl.lake_columns(connection, feed.raw_table):
            continue
        try:
            differing = connection.execute(
                f"""
                SELECT file_id, coalesce(ledger.rows, 0), coalesce(stored.rows, 0)
                FROM (SELECT file_id, rows FROM raw.ingested_files WHERE feed = ?) AS ledger
                FULL JOIN (SELECT file_id, count(*) AS rows FROM {ddl.qualified(feed.raw_table)} GROUP BY file_id)
                     AS stored USING (file_id)
                WHERE coalesce(ledger.rows, 0) <> coalesce(stored.rows, 0)
                ORDER BY file_id
                """,
                [feed.name],
            ).fetchall()
        except duckdb.Error as error:
            message = f"{feed.raw_table} cannot be read beside its ledger: {error}; restore the lake from a backup"
            yield Finding("ledger disagrees", feed.raw_table, message)
            continue
        for file_id, expected, found in differing:
            message = f"landing file {file_id}: the ledger says {expected} rows, {feed.raw_table} holds {found}"
            yield Finding("ledger disagrees", feed.raw_table, f"{message}; restore the lake from a backup")


def _check_models(connection: duckdb.DuckDBPyConnection, settings: Settings) -> Iterator[Finding]:
    """Every version in the registry has its folder, whole and as it was registered."""
    if not ddl.lake_columns(connection, "model.registry"):
        return
    registered = "SELECT DISTINCT model_version, manifest_sha256 FROM model.registry ORDER BY model_version"
    try:
        versions = connection.execute(registered).fetchall()
    except duckdb.Error as error:
        yield Finding("model damaged", "model.registry", f"the registry cannot be read: {error}")
        return
    for version, sha256 in versions:
        try:
            load_model(settings.models, version)
        except LakeError as error:
            yield Finding("model damaged", "model.registry", str(error))
            continue
        if manifest_sha256(settings.models, version) != sha256:
            message = f"the manifest of model {version} is not the one that was registered; restore it from a backup"
            yield Finding("model damaged", "model.registry", message)
