"""Dagster's event log in SQLite, with batches of events written as one.

Here: one connection and one transaction per database for the events of a batch, one engine per database, and a memory
of what its tables are. Not here: what an event is and how it is stored, which stays Dagster's.

A run over business days tells Dagster of every day that it made: two events a day. Dagster's own storage opens three
connections and synchronises the disk three times for each, so that the log of a year took longer than its cleaning. It
also makes a new engine for each, which has to compile every statement anew, and looks at each event whether its tables
have been migrated.

Connections are not kept, though that would be a tenth of a small run: the UI watches the file of a running run, and the
file changes when its last connection is closed.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import NullPool

ENGINES_KEPT = 32
"""Each run has a database of its own, and a daemon lives for months."""


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """`SqliteEventLogStorage` that keeps its promise of batches. Events of a batch that fails are stored one by one."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._batch: ExitStack | None = None
        self._batch_thread: int | None = None
        self._connections: dict[str, Connection] = {}
        # Migrations add tables and columns and take none away, so that only what is missing is looked for again.
        self._there: set[str] = set()
        super().__init__(base_dir, inst_data)
        # A batch holds the lock over both of its databases; other threads wait for its end.
        self._db_lock = threading.RLock()  # type: ignore[assignment]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "BatchedSqliteEventLog":
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        if self._batch is None or self._batch_thread != threading.get_ident():
            with self._open(shard) as connection:
                yield connection
            return
        if shard not in self._connections:
            self._connections[shard] = self._batch.enter_context(self._open(shard))
        yield self._connections[shard]

    @contextmanager
    def _open(self, shard: str) -> Iterator[Connection]:
        """A connection with an open transaction, as Dagster's `_connect` gives it."""
        with self._db_lock:
            engine = _engine(self.conn_string_for_shard(shard))
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def has_table(self, table_name: str) -> bool:
        """Whether the database of all runs has the table."""
        if table_name not in self._there:
            engine = _engine(self.conn_string_for_shard(INDEX_SHARD_NAME))
            with engine.connect() as connection:
                if engine.dialect.has_table(connection, table_name):
                    self._there.add(table_name)
        return table_name in self._there

    def has_asset_key_col(self, column_name: str) -> bool:
        """Whether the table of assets in the database of all runs has the column."""
        return _of_assets(column_name) in self._there or super().has_asset_key_col(column_name)

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        name = _of_assets(column_name)
        if name not in self._there and super()._has_asset_key_col_on_connection(conn, column_name):
            self._there.add(name)
        return name in self._there

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        with self._db_lock, ExitStack() as stack:
            self._batch, self._batch_thread = stack, threading.get_ident()
            try:
                for event in events:
                    self.store_event(event)
            finally:
                self._batch = self._batch_thread = None
                self._connections = {}


def _of_assets(column_name: str) -> str:
    return f"asset_keys.{column_name}"


@lru_cache(maxsize=ENGINES_KEPT)
def _engine(address: str) -> Engine:
    """An engine without connections of its own: it only remembers how statements are compiled."""
    return create_engine(address, poolclass=NullPool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
