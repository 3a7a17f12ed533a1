"""The lake kept small and quick: old snapshots expire, small files are merged, files without use are removed.

Here: `maintain`, alone with the lake: writers wait for it, readers do not notice it. Not here: looking for damage
(`fsck.py`).

A file goes in two steps, because a reader may be at work with a snapshot that has just expired or a file that has
just been merged: first no snapshot names it any more, and only a later maintenance, when the longest read is surely
over (`lake.file_guard_hours`), removes it.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import duckdb
import polars as pl
from filelock import FileLock, Timeout

from retail_platform.contracts.table import TABLES
from retail_platform.lakehouse.compaction import compaction, end_what_was_killed
from retail_platform.lakehouse.connection import CATALOG, LAKE, LakeError, text
from retail_platform.lakehouse.durability import data_files, sync_files
from retail_platform.lakehouse.file_counts import forget
from retail_platform.lakehouse.fsck import catalogued_files, files_awaiting_removal, old_orphans
from retail_platform.lakehouse.lakehouse import Lakehouse
from retail_platform.lakehouse.locks import COMMITS, COMPACTION, MAINTENANCE, lock_folder, table_locks
from retail_platform.lakehouse.storage import DataFiles, StoredFile
from retail_platform.lakehouse.writes import Append, Provenance
from retail_platform.settings import Settings

ASSET = "storage.maintenance"

SMALL_FILE_BYTES = 64_000_000
"""Files below this size are merged with their neighbours. Larger ones are left, so that no row is copied each time."""

DELETED_SHARE = 0.2
"""From this share of deleted rows on, a file is written anew without them."""

_COMPACTIONS = (
    f"CALL ducklake_rewrite_data_files('{LAKE}', ?, schema => ?, delete_threshold => {DELETED_SHARE})",
    f"CALL ducklake_merge_adjacent_files('{LAKE}', ?, schema => ?, max_file_size => {SMALL_FILE_BYTES})",
)


@dataclass(frozen=True)
class Maintenance:
    """What one maintenance did; the fields are the columns of `storage.maintenance`."""

    run_id: str
    started_at: datetime
    finished_at: datetime
    snapshots_expired: int
    snapshots_kept: int
    files_compacted: int
    files_written: int
    files_removed: int
    orphans_removed: int
    bytes_removed: int
    leftovers_removed: int


@dataclass(frozen=True)
class _Compacted:
    read: int
    written: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Removed:
    files: int
    orphans: int
    bytes: int


def maintain(lake: Lakehouse, *, run_id: str = "", now: datetime | None = None) -> Maintenance:
    """Expire, compact and remove, and record in `storage.maintenance` what was done.

    Before a snapshot expires, its commit is kept in `governance.commits`. Raises `LakeError` where a writer does not
    end within `lake.lock_timeout_seconds`, and, after everything else was done, where tables could not be compacted.
    """
    settings = lake.settings
    started = now or datetime.now(UTC)
    by = Provenance(asset=ASSET, run_id=run_id or str(uuid4()))
    expiring = _expiring(lake, started)
    _keep_commits(lake, expiring, by)
    with _alone(lake):
        _expire(lake, expiring["snapshot_id"].to_list())
        compacted = _compact(lake, by)
        removed = _remove_files(lake, started - timedelta(hours=settings.lake.file_guard_hours))
    # So that the account of every day is made of its rows now and then.
    forget(settings)
    leftovers = _remove_leftovers(settings, started - timedelta(hours=settings.lake.file_guard_hours))
    report = Maintenance(
        run_id=by.run_id,
        started_at=started.replace(tzinfo=None),
        finished_at=datetime.now(UTC).replace(tzinfo=None),
        snapshots_expired=expiring.height,
        snapshots_kept=lake.snapshots().height,
        files_compacted=compacted.read,
        files_written=compacted.written,
        files_removed=removed.files,
        orphans_removed=removed.orphans,
        bytes_removed=removed.bytes,
        leftovers_removed=leftovers,
    )
    table = TABLES[ASSET]
    lake.commit([Append(table, pl.DataFrame([asdict(report)], schema=table.polars_schema))], by)
    if compacted.failures:
        raise LakeError(
            f"the rest of the maintenance is done, but not compacted were {'; '.join(compacted.failures)}. They can "
            "be read and written as before; `retail-platform lake fsck` shows whether their files are sound"
        )
    return report


def _expiring(lake: Lakehouse, now: datetime) -> pl.DataFrame:
    """Commits whose snapshots are older than is to be kept: all but the newest, and those that champions need."""
    commits = lake.commits().filter(~pl.col("expired"))
    old = commits.filter(pl.col("committed_at") < _naive(now - timedelta(days=lake.settings.lake.snapshot_days)))
    return old.filter(
        pl.col("snapshot_id") < commits["snapshot_id"].max(),
        ~pl.col("snapshot_id").is_in(_snapshots_of_champions(lake, now)),
    )


def _snapshots_of_champions(lake: Lakehouse, now: datetime) -> list[int]:
    """What must stay readable so that models can be reproduced: each shard's champion, and earlier ones for a time."""
    if "model.registry" not in lake.tables():
        return []
    since = _naive(now - timedelta(days=lake.settings.lake.model_snapshot_days))
    champions = lake.query(
        "SELECT lake_snapshot FROM model.registry WHERE stage = 'champion' "
        "QUALIFY changed_at >= ? OR row_number() OVER (PARTITION BY shard ORDER BY changed_at DESC) = 1",
        [since],
    )
    return champions.to_series().to_list()


def _keep_commits(lake: Lakehouse, expiring: pl.DataFrame, by: Provenance) -> None:
    """Write down what the snapshots say before they go; one that an interrupted maintenance wrote down is there."""
    table = TABLES["governance.commits"]
    rows = expiring.select(table.polars_schema.names())
    if table.name in lake.tables():
        rows = rows.join(lake.read(table.name, columns=["snapshot_id"]), on="snapshot_id", how="anti")
    if rows.height:
        lake.commit([Append(table, rows)], by)


@contextmanager
def _alone(lake: Lakehouse) -> Iterator[None]:
    """Hold the lock of every table, and the one by which a backup keeps maintenance away."""
    with table_locks(lake.settings, [MAINTENANCE, LAKE, *TABLES, *lake.tables()]):
        yield


def _expire(lake: Lakehouse, snapshots: Sequence[int]) -> None:
    if not snapshots:
        return
    with lake.connection(read_only=False) as connection:
        connection.execute(f"CALL ducklake_expire_snapshots('{LAKE}', versions => ?)", [list(snapshots)])


def _compact(lake: Lakehouse, by: Provenance) -> _Compacted:
    """Write small files, and files with many deleted rows, anew; table by table, so that one that fails stops none."""
    read = written = 0
    failures = []
    end_what_was_killed(lake.settings)
    for schema, table in _worth_compacting(lake):
        for statement in _COMPACTIONS:
            try:
                files_read, files_written = _compact_table(lake, statement, schema, table, by)
            except (duckdb.Error, LakeError, OSError) as error:
                failures.append(f"{schema}.{table}: {error}")
                break
            read, written = read + files_read, written + files_written
    return _Compacted(read, written, tuple(failures))


def _worth_compacting(lake: Lakehouse) -> list[tuple[str, str]]:
    """Tables with several small files, or with deleted rows."""
    sql = f"""
        SELECT s.schema_name, t.table_name
        FROM {CATALOG}.ducklake_table AS t
        JOIN {CATALOG}.ducklake_schema AS s USING (schema_id)
        JOIN {CATALOG}.ducklake_data_file AS f ON f.table_id = t.table_id AND f.end_snapshot IS NULL
        LEFT JOIN {CATALOG}.ducklake_delete_file AS d ON d.data_file_id = f.data_file_id AND d.end_snapshot IS NULL
        WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL
        GROUP BY ALL
        HAVING count(*) FILTER (f.file_size_bytes < {SMALL_FILE_BYTES}) > 1 OR count(d.data_file_id) > 0
        ORDER BY ALL
    """
    return [(schema, table) for schema, table in lake.query(sql).iter_rows()]


def _compact_table(lake: Lakehouse, statement: str, schema: str, table: str, by: Provenance) -> tuple[int, int]:
    """One transaction, whose new files are on disk before it commits; the numbers of files read and written."""
    settings = lake.settings
    folder = None if settings.on_object_storage else settings.lake_data / schema / table
    before = data_files(folder) if folder else set()
    # A connection of its own: an internal error of DuckDB leaves a connection unusable. Between two tables it is the
    # turn of readers who met compactions too often.
    with compaction(settings), lake.connection(read_only=False) as connection:
        connection.execute("BEGIN")
        done = connection.execute(statement, [table, schema]).fetchall()
        connection.execute(
            f"CALL {LAKE}.set_commit_message(?, ?, extra_info => ?)", [by.run_id, f"{schema}.{table}", by.as_json()]
        )
        if folder:
            sync_files(data_files(folder) - before, settings.lake_data.parent)
        connection.execute("COMMIT")
    return sum(row[2] for row in done), sum(row[3] for row in done)


def _remove_files(lake: Lakehouse, before: datetime) -> _Removed:
    """Remove what no snapshot has needed since `before`, and what none ever named."""
    files = DataFiles(lake.settings)
    stored = files.listing()
    with lake.connection(read_only=False) as connection:
        known = {*catalogued_files(connection), *files_awaiting_removal(connection)}
        connection.execute(f"CALL ducklake_cleanup_old_files('{LAKE}', older_than => {text(before.isoformat())})")
        removed = known - {*catalogued_files(connection), *files_awaiting_removal(connection)}
    orphans = old_orphans(stored, known, before)
    for path in orphans:
        files.remove(path)
    return _Removed(len(removed), len(orphans), _bytes(stored, [*removed, *orphans]))


def _bytes(stored: dict[str, StoredFile], paths: Iterable[str]) -> int:
    return sum(stored[path].bytes for path in paths if path in stored)


def _remove_leftovers(settings: Settings, before: datetime) -> int:
    """Spooled rows and half-written models of killed processes, and locks of what is long over; how many."""
    temporary = [*(settings.home / "spool").glob("*"), *settings.models.glob(".*")]
    old = [path for path in temporary if _older(path, before)]
    for path in old:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(old) + sum(_remove_lock(file) for file in _spent_locks(settings, before))


def _spent_locks(settings: Settings, before: datetime) -> list[Path]:
    """Lock files that are not of a table: a table's is used again."""
    lasting = {f"{name}.lock" for name in (COMMITS, COMPACTION, MAINTENANCE, LAKE, *TABLES)}
    files = lock_folder(settings).glob("*.lock")
    return [file for file in files if file.name not in lasting and _older(file, before)]


def _remove_lock(file: Path) -> bool:
    """Remove a lock file that nobody holds. Whoever opened it just now sees that it is gone, and makes it anew."""
    try:
        with FileLock(file, timeout=0):
            file.unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _older(path: Path, before: datetime) -> bool:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) < before
    except FileNotFoundError:
        return False


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
