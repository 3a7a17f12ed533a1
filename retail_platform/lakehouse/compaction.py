"""How a reader of a SQLite catalog learns that files were merged while it read.

In SQLite, unlike in PostgreSQL, the transaction of DuckDB is no snapshot: a statement that meets a compaction between
looking up the files of one table and those of the next misses files of the next one. Such a read has to be asked again.

Here: the number that compactions count up in a file beside the locks, and what it says to a reader. Not here: merging
files (`maintenance.py`), and asking again (`lakehouse.py`). What another client of DuckLake merges is not counted: only
`retail-platform lake maintain` may merge files of a lake that is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from retail_platform.lakehouse.connection import CATALOG, Reader
from retail_platform.lakehouse.locks import COMPACTION, lock_folder, table_locks
from retail_platform.settings import Settings


@contextmanager
def compaction(settings: Settings) -> Iterator[None]:
    """What is done within is one compaction: no other runs beside it, and readers are told.

    Raises `LakeError` where another compaction, or a reader who keeps them away, does not end within
    `lake.lock_timeout_seconds`.
    """
    with table_locks(settings, [COMPACTION]):
        if settings.catalog != "sqlite":
            yield
            return
        # Odd while it is under way. One that was killed left the number odd.
        number = (_number(settings) + 1) | 1
        _write(settings, number)
        try:
            yield
        finally:
            # Where there is no room it stays odd, which costs readers time and no row.
            with suppress(OSError):
                _write(settings, number + 1)


def end_what_was_killed(settings: Settings) -> None:
    """Make the number even where a compaction that was killed left it odd."""
    if settings.catalog == "sqlite" and _number(settings) % 2:
        with compaction(settings):
            pass


def state_of_compactions(settings: Settings, reader: Reader) -> tuple[int, int]:
    """What is the same before and after a read if no files were merged meanwhile.

    While a compaction is under way, which may take long and disturbs no reader before it commits, and after one that
    was killed, the catalog is asked as well. To ask it always would cost more than a quarter of a small read.
    """
    if settings.catalog != "sqlite":
        return 0, 0
    number = _number(settings)
    return number, reader.ask(_newest) if number % 2 else 0


def _newest(connection: duckdb.DuckDBPyConnection) -> int:
    """The last snapshot in which files were merged or rewritten."""
    found = connection.execute(
        f"SELECT coalesce(max(snapshot_id), 0) FROM {CATALOG}.ducklake_snapshot_changes "
        "WHERE changes_made LIKE '%merge_adjacent%' OR changes_made LIKE '%rewrite_delete%'"
    )
    return int(found.fetchall()[0][0])


def _file(settings: Settings) -> Path:
    return lock_folder(settings) / "compactions"


def _number(settings: Settings) -> int:
    try:
        return int(_file(settings).read_bytes())
    except FileNotFoundError:
        return 0
    except ValueError:
        # What a power failure may leave of the file: to be taken like the number of one that was killed.
        return 1


def _write(settings: Settings, number: int) -> None:
    new = _file(settings).with_suffix(".new")
    new.write_text(str(number), encoding="ascii")
    # Whole or not at all: readers look at any moment.
    new.replace(_file(settings))
