"""One writer per table, across processes.

DuckLake has snapshot isolation and no unique constraint: two writers that replace the same partition for the
first time both commit, and double it. Writers therefore hold a lock per table while they write: a lock file
beside a SQLite catalog, an advisory lock in a PostgreSQL catalog. Both end with the process that held them.
Readers take no lock, but for the one that met `COMPACTION` too often.
"""

import atexit
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

from retail_platform.lakehouse.connection import LakeError, psycopg_module, unreachable
from retail_platform.settings import Settings

MAINTENANCE = "maintenance"
"""Lock under which no file is removed: maintenance holds it, and a backup."""

COMPACTION = "compaction"
"""Lock under which files of one table are merged; also of a reader who met that too often, to be spared it."""

COMMITS = "commits"
"""Lock of the short transactions of a SQLite catalog, which admits one at a time."""

_LOOK_AGAIN_SECONDS = 0.01

_idle: dict[tuple[int, str], list[Any]] = {}
"""Sessions that hold no lock, by process and catalog: to log in for every commit would cost a quarter of a small one.
By process, since a session that a fork inherited is its parent's."""
_idle_guard = Lock()

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
    """Where the lock files of a SQLite catalog lie, and the number of its compactions."""
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
    session = held.enter_context(_session(settings))
    for name in names:
        try:
            session.execute("SELECT pg_advisory_lock(%s, %s)", (_NAMESPACE, zlib.crc32(name.encode()) - (1 << 31)))
        except psycopg.errors.LockNotAvailable:
            raise _not_free(settings, name) from None
        except psycopg.Error as error:
            raise LakeError(f"the lake's catalog went away while {name} was to be locked: {error}") from error


@contextmanager
def _session(settings: Settings) -> Iterator[Any]:
    """A session of the catalog that gives its locks back at the end: it is kept where it can be, else closed."""
    psycopg = psycopg_module()
    session = _kept_session(settings) or _new_session(settings)
    try:
        yield session
    except BaseException:
        session.close()
        raise
    try:
        session.execute("SELECT pg_advisory_unlock_all()")
    except psycopg.Error:
        # The server has gone away, and its locks with it; what was committed under them stays so.
        session.close()
        return
    with _idle_guard:
        _idle.setdefault((os.getpid(), settings.catalog), []).append(session)


def _kept_session(settings: Settings) -> Any:
    """A session of an earlier lock, if there is one that still answers."""
    with _idle_guard:
        kept = _idle.get((os.getpid(), settings.catalog), [])
        session = kept.pop() if kept else None
    if session is None:
        return None
    with suppress(psycopg_module().Error):
        return _with_patience(session, settings)
    session.close()
    return None


def _new_session(settings: Settings) -> Any:
    psycopg = psycopg_module()
    try:
        return _with_patience(psycopg.connect(settings.catalog, autocommit=True), settings)
    except psycopg.OperationalError as error:
        raise unreachable(error) from error


def _with_patience(session: Any, settings: Settings) -> Any:
    session.execute(f"SET lock_timeout = '{int(settings.lake.lock_timeout_seconds * 1000)}ms'")
    return session


@atexit.register
def _close_idle() -> None:
    with _idle_guard:
        for session in [session for (process, _), kept in _idle.items() if process == os.getpid() for session in kept]:
            session.close()
        _idle.clear()


def _not_free(settings: Settings, name: str) -> LakeError:
    busy = "files are being merged" if name == COMPACTION else f"table {name} is being written by another process"
    return LakeError(
        f"{busy} for more than {settings.lake.lock_timeout_seconds:g} s; wait for it to end, or raise "
        "lake.lock_timeout_seconds"
    )
