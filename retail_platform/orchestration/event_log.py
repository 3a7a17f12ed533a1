"""Dagster's event log in SQLite, with batches of events written as one.

Here: one connection and one transaction per database for the events of a batch. Not here: what an event is and how it
is stored, which stays Dagster's.

A run over business days tells Dagster of every day that it made: two events a day. Dagster's own storage opens three
connections and synchronises the disk three times for each, so that the log of a year took longer than its cleaning.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from sqlalchemy.engine import Connection


class BatchedSqliteEventLog(SqliteEventLogStorage):
    """`SqliteEventLogStorage` that keeps its promise of batches. Events of a batch that fails are stored one by one."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._batch: ExitStack | None = None
        self._batch_thread: int | None = None
        self._connections: dict[str, Connection] = {}
        super().__init__(base_dir, inst_data)
        # A batch holds the lock over both of its databases; other threads wait for its end.
        self._db_lock = threading.RLock()  # type: ignore[assignment]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "BatchedSqliteEventLog":
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        if self._batch is None or self._batch_thread != threading.get_ident():
            with super()._connect(shard) as connection:
                yield connection
            return
        if shard not in self._connections:
            self._connections[shard] = self._batch.enter_context(super()._connect(shard))
        yield self._connections[shard]

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        with self._db_lock, ExitStack() as stack:
            self._batch, self._batch_thread = stack, threading.get_ident()
            try:
                for event in events:
                    self.store_event(event)
            finally:
                self._batch = self._batch_thread = None
                self._connections = {}
