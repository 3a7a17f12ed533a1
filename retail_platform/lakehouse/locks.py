"""One writer per table, across processes.

DuckLake has snapshot isolation and no unique constraint: two writers that replace the same partition for the
first time both commit, and double it. Writers therefore hold a lock per table while they write: a lock file
beside a SQLite catalog, an advisory lock in a PostgreSQL catalog. Both end with the process that held them.
Readers take no lock, but for the one that met `COMPACTION` too often.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from retail_platform.lakehouse.connection import LakeError, psycopg_module, unreachable
from retail_platform.settings import Settings

MAINTENANCE = "maintenance"
"""Lock under which no file is removed: maintenance holds it, and a backup."""

COMPACTION = "compaction"
"""Lock under which files of one table are merged; also of a reader who met that too often, to be spared it."""

COMMITS = "commits"
"""Lock of the short transactions of a SQLite catalog, which admits one at a time."""

_LOOK_AGAIN_SECONDS = 0.01

_NAMESPACE = 0x5245_5441  # "RETA": keeps these advisory locks apart from other users of the same database


@contextmanager
def table_locks(settings: Settings, tables: Sequence[str]) -> Iterator[None]:
    """Hold the write locks of `tables`, taken in the order of their names so that two writers cannot deadlock.

    Raises `LakeError` where a lock is not free within `lake.lock_timeout_seconds`.
    """
    names = sorted(set(tables))
    with ExitStack() as held:
        if settings.catalog == "sqlite":
            _lock_files(settings, names, held)
        else:
            _advisory_locks(settings, names, held)
        yield


@contextmanager
def turn(settings: Settings) -> Iterator[None]:
    """The turn of one among the short transactions of all processes, where the catalog refuses two at a time.

    SQLite would tell the second that the database is locked, and its work would be lost. PostgreSQL lets them be.
    """
    if settings.catalog != "sqlite":
        yield
        return
    with table_locks(settings, [COMMITS]):
        yield


def lock_folder(settings: Settings) -> Path:
    """Where the lock files of a SQLite catalog lie."""
    return settings.home / "locks"


def _lock_files(settings: Settings, names: Sequence[str], held: ExitStack) -> None:
    from filelock import FileLock, Timeout

    folder = lock_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            lock = FileLock(folder / f"{name}.lock")
            held.enter_context(lock.acquire(settings.lake.lock_timeout_seconds, poll_interval=_LOOK_AGAIN_SECONDS))
        except Timeout:
            raise _not_free(settings, name) from None


def _advisory_locks(settings: Settings, names: Sequence[str], held: ExitStack) -> None:
    psycopg = psycopg_module()
    try:
        # Closing it gives the locks back, and cannot fail where the server has gone away after the commit.
        connection = held.enter_context(closing(psycopg.connect(settings.catalog, autocommit=True)))
    except psycopg.OperationalError as error:
        raise unreachable(error) from error
    for name in names:
        try:
            connection.execute(f"SET lock_timeout = '{int(settings.lake.lock_timeout_seconds * 1000)}ms'")
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (_NAMESPACE, zlib.crc32(name.encode()) - (1 << 31)))
        except psycopg.errors.LockNotAvailable:
            raise _not_free(settings, name) from None
        except psycopg.Error as error:
            raise LakeError(f"the lake's catalog went away while {name} was to be locked: {error}") from error


def _not_free(settings: Settings, name: str) -> LakeError:
    busy = "files are being merged" if name == COMPACTION else f"table {name} is being written by another process"
    return LakeError(
        f"{busy} for more than {settings.lake.lock_timeout_seconds:g} s; wait for it to end, or raise "
        "lake.lock_timeout_seconds"
    )
