"""Whether the lake is sound: catalog, files and ledger must agree.

Here: `fsck`, which looks and changes nothing. Not here: the remedy, which depends on what is lost.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from retail_platform.contracts.feeds import FEEDS
from retail_platform.lakehouse import ddl
from retail_platform.lakehouse.connection import LAKE
from retail_platform.lakehouse.durability import data_files
from retail_platform.lakehouse.lakehouse import Lakehouse

_CATALOG = f"__ducklake_metadata_{LAKE}"

_FILES_OF_EVERY_SNAPSHOT = f"""
    WITH place AS (
        SELECT DISTINCT ON (table_id) table_id, schema_name || '.' || table_name AS name,
               CASE WHEN t.path_is_relative THEN s.path || t.path ELSE t.path END AS path
        FROM {_CATALOG}.ducklake_table AS t JOIN {_CATALOG}.ducklake_schema AS s USING (schema_id)
        ORDER BY table_id, t.begin_snapshot DESC
    ), file AS (
        SELECT table_id, path, path_is_relative, record_count AS rows FROM {_CATALOG}.ducklake_data_file
        UNION ALL
        SELECT table_id, path, path_is_relative, delete_count FROM {_CATALOG}.ducklake_delete_file
    )
    SELECT name, CASE WHEN path_is_relative THEN place.path || file.path ELSE file.path END AS path, rows
    FROM file JOIN place USING (table_id)
    ORDER BY name, path
"""


@dataclass(frozen=True)
class Finding:
    """Something in the lake that does not agree, with the remedy in its message."""

    kind: Literal["file missing", "file damaged", "file not catalogued", "ledger disagrees"]
    subject: str
    message: str


def fsck(lake: Lakehouse, *, orphans_older_than: timedelta = timedelta(days=1)) -> list[Finding]:
    """Every disagreement between catalog, data files and the ledger of landing files; empty where all is well.

    Files of every snapshot that is kept are checked, not only those of the present one. A file that the catalog
    does not name may belong to a write that is still under way, and counts only when it is old enough.
    """
    with lake.connection() as connection:
        files = connection.execute(_FILES_OF_EVERY_SNAPSHOT).fetchall()
        deletion = connection.execute(f"SELECT path FROM {_CATALOG}.ducklake_files_scheduled_for_deletion").fetchall()
        ledger = list(_check_ledger(connection))
    root = lake.settings.lake_data
    catalogued = {root / path: (table, rows) for table, path, rows in files}
    known = set(catalogued) | {root / path for (path,) in deletion}
    newest = time.time() - orphans_older_than.total_seconds()
    return [
        *(finding for file, (table, rows) in catalogued.items() for finding in _check_file(file, table, rows)),
        *(finding for file in sorted(data_files(root) - known) for finding in _check_orphan(file, newest)),
        *ledger,
    ]


def _check_file(file: Path, table: str, rows: int) -> Iterator[Finding]:
    remedy = f"restore it from a backup, or rebuild the part of {table} that it held"
    try:
        found = pq.read_metadata(file).num_rows
    except FileNotFoundError:
        yield Finding("file missing", table, f"{file} is in the catalog and not on disk; {remedy}")
    except (OSError, pa.ArrowException) as error:
        yield Finding("file damaged", table, f"{file} cannot be read: {error}; {remedy}")
    else:
        if found != rows:
            yield Finding("file damaged", table, f"{file} holds {found} rows, the catalog says {rows}; {remedy}")


def _check_orphan(file: Path, newest: float) -> Iterator[Finding]:
    try:
        modified = file.stat().st_mtime
    except FileNotFoundError:
        return  # a write that was under way has been rolled back
    if modified < newest:
        message = f"{file} belongs to no snapshot, as a killed write leaves behind; it may be removed"
        yield Finding("file not catalogued", f"{file.parent.parent.name}.{file.parent.name}", message)


def _check_ledger(connection: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """Every file of the ledger has its rows in the raw table of its feed, and no other rows are there."""
    if not ddl.lake_columns(connection, "raw.ingested_files"):
        return
    for feed in FEEDS.values():
        if not ddl.lake_columns(connection, feed.raw_table):
            continue
        differing = connection.execute(
            f"""
            SELECT file_id, coalesce(ledger.rows, 0), coalesce(stored.rows, 0)
            FROM (SELECT file_id, rows FROM raw.ingested_files WHERE feed = ?) AS ledger
            FULL JOIN (SELECT file_id, count(*) AS rows FROM {ddl.qualified(feed.raw_table)} GROUP BY file_id) AS stored
            USING (file_id)
            WHERE coalesce(ledger.rows, 0) <> coalesce(stored.rows, 0)
            ORDER BY file_id
            """,
            [feed.name],
        ).fetchall()
        for file_id, expected, found in differing:
            message = f"landing file {file_id}: the ledger says {expected} rows, {feed.raw_table} holds {found}"
            yield Finding("ledger disagrees", feed.raw_table, f"{message}; restore the lake from a backup")
