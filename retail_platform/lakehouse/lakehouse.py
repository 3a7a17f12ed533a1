"""The lake as the other rooms see it: read tables, write slices, ask what was committed.

A call of `commit` is one transaction over any number of tables: it replaces exactly the slices that it names,
inserts by column name, carries its provenance, and is on disk before it is acknowledged. A crash leaves the old
state. Not here: what the rows mean, and when they are written.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import duckdb
import polars as pl
import pyarrow as pa
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from retail_platform.contracts.table import TABLES, Table
from retail_platform.lakehouse import ddl
from retail_platform.lakehouse.compaction import state_of_compactions
from retail_platform.lakehouse.connection import (
    CATALOG,
    LAKE,
    Connect,
    LakeError,
    NoLakeError,
    NoSnapshotError,
    Reader,
    Writer,
    catalog_identity,
    confine,
    first_row,
    in_memory,
    is_conflict,
    open_lake,
)
from retail_platform.lakehouse.durability import Folder, data_files, sync_files
from retail_platform.lakehouse.locks import COMPACTION, table_locks, turn
from retail_platform.lakehouse.staging import Staged, enter, rows_of, staged
from retail_platform.lakehouse.writes import Append, Commit, Provenance, Query, ReplaceSlices, ReplaceTable, Rows, Write
from retail_platform.settings import Settings

# The catalog's own tables tell in a tenth of the time that `duckdb_tables()` takes, which looks at every column.
_TABLES_OF_LAKE = (
    f"SELECT schema_name || '.' || table_name AS name FROM {CATALOG}.ducklake_table t "
    f"JOIN {CATALOG}.ducklake_schema s USING (schema_id) WHERE t.end_snapshot IS NULL AND s.end_snapshot IS NULL"
)

At: TypeAlias = int | datetime
"""A state of the lake: the number of a snapshot, or a time."""

_COMMITS_OF_SNAPSHOTS = f"""
    SELECT snapshot_id, snapshot_time::TIMESTAMP AS committed_at, author AS run_id, commit_message AS message,
           commit_extra_info AS provenance, changes::VARCHAR AS changes
    FROM ducklake_snapshots('{LAKE}')
"""

_READS_BESIDE_COMPACTION = 3
"""How often a read is asked again because files were merged meanwhile, before it keeps the next merging waiting."""

_READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)


CommitStep = Literal["inserted", "synced", "committed"]
"""How far a commit has come: its rows are in files; the files are on disk; the catalog has it."""


def _go_on(_: CommitStep) -> None:
    pass


class Lakehouse:
    """The lake of one home folder. Reads share a connection that stays open, and so do commits after one another.

    `on_step` is called whenever a commit has come a step further; the fault tests kill the process there.
    """

    def __init__(
        self, settings: Settings, connect: Connect = in_memory, on_step: Callable[[CommitStep], None] = _go_on
    ) -> None:
        self.settings = settings
        self._connect = connect
        self._on_step = on_step
        self._lasting: frozenset[Folder] = frozenset()
        self._prepared: tuple[int, int] | None = None
        self._reader = Reader(settings, connect)
        self._writer = Writer(settings, connect)

    @contextmanager
    def connection(self, *, read_only: bool = True, at: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A DuckDB connection whose current database is the lake, for what the methods below do not offer."""
        with open_lake(self.settings, read_only=read_only, at=at, connect=self._connect) as connection:
            yield connection

    def tables(self) -> frozenset[str]:
        """The names of all tables that there are, such as `clean.sales`."""
        return frozenset(self.query(_TABLES_OF_LAKE)["name"])

    def prepare(self) -> None:
        """Create every schema and contract table that is missing, so that a table never written reads as empty."""
        catalog = catalog_identity(self.settings)
        if self._prepared and self._prepared == catalog:
            # What a person has dropped since is made again by the next process.
            return
        try:
            there = self.tables()
        except LakeError:
            # No lake yet, or one that cannot be opened: creating says which.
            there = frozenset()
        if not there.issuperset(TABLES):
            self._create(TABLES.values())
        now = catalog_identity(self.settings)
        self._prepared = now if catalog in (None, now) else None

    def _create(self, tables: Iterable[Table]) -> None:
        with table_locks(self.settings, ["lake"]):
            for attempt in self._attempts():
                with attempt, self._writer.creating() as session:
                    _create_missing(session.connection, tables)
                    session.last_snapshot = _last_own_snapshot(session.connection)

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        where: str = "",
        parameters: Sequence[Any] = (),
        at: At | None = None,
    ) -> pl.DataFrame:
        """Rows of a table, all or those that satisfy the SQL condition `where` with its `?` parameters."""
        return self.query(_select(table, columns, where), parameters, at=at)

    def query(self, sql: str, parameters: Sequence[Any] = (), *, at: At | None = None) -> pl.DataFrame:
        """The result of one reading statement, which sees the lake and no other file; tables are named as
        `clean.sales`.

        Raises `LakeError` where the statement is refused, with the engine's own words.
        """

        def ask(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
            _refuse_all_but_reading(connection, sql)
            return connection.execute(sql, list(parameters)).pl()

        with _engine_errors():
            if at is None:
                return self._settled(lambda: self._reader.ask(ask))
            snapshot = self.snapshot_as_of(at)
            with self.connection(at=snapshot) as connection:
                confine(connection, self.settings)
                try:
                    return self._settled(lambda: ask(connection))
                finally:
                    # One that expired meanwhile may have shown fewer rows than it had.
                    self.snapshot_as_of(snapshot)

    def _settled(self, read: Callable[[], pl.DataFrame]) -> pl.DataFrame:
        """The rows of `read`, which is asked again where files were merged while it looked for them.

        A reader who meets this again and again, as a slow one does while many tables are compacted one after the
        other, keeps the next compaction waiting while it reads.
        """
        before = state_of_compactions(self.settings, self._reader)
        for _ in range(_READS_BESIDE_COMPACTION):
            rows = read()
            after = state_of_compactions(self.settings, self._reader)
            if after == before:
                return rows
            before = after
        try:
            with table_locks(self.settings, [COMPACTION]):
                return read()
        except OSError as error:
            raise LakeError(
                f"files were merged each time that this was read, and merging cannot be kept waiting: {error}; read "
                "it again when the maintenance is over"
            ) from error

    @contextmanager
    def read_batches(
        self, table: str, *, columns: Sequence[str] | None = None, where: str = "", batch_rows: int = 500_000
    ) -> Iterator[pa.RecordBatchReader]:
        """Rows of a table as a stream, for tables larger than memory."""
        with self.connection() as connection:
            with _engine_errors():
                reader = connection.execute(_select(table, columns, where)).to_arrow_reader(batch_rows)
            yield reader

    def snapshot_id(self) -> int:
        """The latest snapshot; every commit makes a new one."""
        return int(self.query(f"SELECT id FROM ducklake_current_snapshot('{LAKE}')").item())

    def snapshots(self, limit: int | None = None) -> pl.DataFrame:
        """The snapshots that can be read, or the newest of them, with time (UTC), author, message, provenance and
        changes, newest first.
        """
        return self.query(
            "SELECT snapshot_id, snapshot_time::TIMESTAMP AS snapshot_time, author, commit_message, "
            f"commit_extra_info, changes::VARCHAR AS changes FROM ducklake_snapshots('{LAKE}') "
            "ORDER BY snapshot_id DESC LIMIT ?",
            [limit],
        )

    def snapshot_as_of(self, at: At) -> int:
        """The snapshot by this number, or the one that was the newest at this time (UTC where it has no zone).

        Raises `NoSnapshotError` where it has expired or never was. A time between two snapshots that are kept may
        have had another one, since expired; its state is then not known, and no older one is shown in its place.
        """
        there = self.snapshots().select("snapshot_id", "snapshot_time").sort("snapshot_id")
        kept = there["snapshot_id"].to_list()
        if isinstance(at, datetime):
            moment = at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at
            earlier = there.filter(pl.col("snapshot_time") <= moment)["snapshot_id"].to_list()
            found = earlier[-1] if earlier else -1
            known = found in kept and (found == kept[-1] or found + 1 in kept)
        else:
            found, known = at, at in kept
        if known:
            return int(found)
        if found > kept[-1]:
            raise NoSnapshotError(f"there is no snapshot {at} in the lake; the newest is {kept[-1]}")
        nearest = next(number for number in kept if number > found)
        state = f"snapshot {at}" if isinstance(at, int) else f"the state of the lake at {at:%Y-%m-%dT%H:%M:%S}"
        raise NoSnapshotError(
            f"{state} has expired, or is older than the lake; the next that can be read is snapshot {nearest}. "
            "`retail-platform lake snapshots` lists them all; lake.snapshot_days says how long they are kept"
        )

    def commits(self) -> pl.DataFrame:
        """Every commit that ever was, newest first, in the columns of `governance.commits`, which has those whose
        snapshots have expired; `expired` says which.
        """
        columns = ", ".join(TABLES["governance.commits"].polars_schema)

        def ask(connection: duckdb.DuckDBPyConnection) -> pl.DataFrame:
            sql = f"SELECT {columns}, false AS expired FROM ({_COMMITS_OF_SNAPSHOTS})"
            if ddl.lake_columns(connection, "governance.commits"):
                sql += (
                    f" UNION ALL SELECT {columns}, true FROM governance.commits"
                    f" ANTI JOIN ({_COMMITS_OF_SNAPSHOTS}) USING (snapshot_id)"
                )
            return connection.execute(f"{sql} ORDER BY snapshot_id DESC").pl()

        with _engine_errors():
            return self._settled(lambda: self._reader.ask(ask))

    def commit(self, writes: Sequence[Write], provenance: Provenance) -> Commit:
        """Carry out all `writes` in one transaction and return what was done.

        Conflicts with other writers are tried again a bounded number of times; every other error is raised and
        leaves the lake as it was. A home without a lake gets one. Raises `LakeError` where the rows do not fit
        or cannot be written, and `SchemaChangeError` where a table cannot follow its contract.
        """
        names = [write.table.name for write in writes]
        for write in writes:
            _refuse_other_columns(write)
            _refuse_strays(write)
        try:
            with table_locks(self.settings, names), staged(self.settings, writes) as repeatable:
                for attempt in self._attempts():
                    with attempt:
                        number = attempt.retry_state.attempt_number
                        # What is short waits for its turn; what lasts does so once it has met others.
                        patient = number > 1 or all(write.at_hand for write in repeatable)
                        with turn(self.settings) if patient else nullcontext():
                            try:
                                return self._try_commit(repeatable, provenance, number)
                            except NoLakeError:
                                self._create([])
                                return self._try_commit(repeatable, provenance, number)
        except (duckdb.Error, OSError) as error:
            raise LakeError(f"could not write to {', '.join(sorted(set(names)))}: {error}") from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _try_commit(self, writes: Sequence[Staged], provenance: Provenance, attempt: int) -> Commit:
        before = self._data_files(writes)
        rows: Counter[str] = Counter()
        with self._writer.begin() as session:
            connection = session.connection
            try:
                changes = [change for write in writes for change in _follow_contract(connection, write.table)]
                for write in writes:
                    name = write.table.name
                    # What this transaction has inserted itself is in no list of files yet.
                    replaces = not isinstance(write.write, Append) and (
                        name in rows or ddl.may_hold_rows(connection, name)
                    )
                    rows[name] += self._write(connection, write, replaces=replaces)
                connection.execute(
                    f"CALL {LAKE}.set_commit_message(?, ?, extra_info => ?)",
                    [provenance.run_id, provenance.message(), provenance.as_json()],
                )
                self._on_step("inserted")
                self._sync(self._data_files(writes) - before)
                self._on_step("synced")
            except BaseException:
                with suppress(duckdb.Error):
                    connection.execute("ROLLBACK")
                self._remove_unfinished(writes, before)
                raise
            try:
                connection.execute("COMMIT")
            except duckdb.Error as error:
                # Any other error leaves it open whether the catalog has the files.
                if is_conflict(error):
                    self._remove_unfinished(writes, before)
                raise
            self._on_step("committed")
            snapshot = _last_own_snapshot(connection)
            if snapshot is None or snapshot == session.last_snapshot:
                # A transaction that changed nothing, such as emptying an empty slice, makes no snapshot of its own.
                snapshot = _scalar(connection, f"SELECT id FROM ducklake_current_snapshot('{LAKE}')")
            else:
                session.last_snapshot = snapshot
        return Commit(snapshot, dict(rows), tuple(changes), attempt)

    def _write(self, connection: duckdb.DuckDBPyConnection, staged: Staged, *, replaces: bool) -> int:
        """Carry out one write inside the open transaction, which `replaces` rows or finds none; the number of rows
        inserted."""
        table, rows = staged.table, staged.write.rows
        _refuse_own_rows(connection, staged.write)
        # To delete nothing would cost as much as half of a small commit.
        if replaces:
            _delete_replaced(connection, staged.write)
        if staged.files:
            query = Query.of_parquet(*staged.files)
            for file in staged.files:
                _refuse_other_result(connection, table, f"({Query.of_parquet(file).sql})")
            if not (staged.read or self.settings.on_object_storage) and enter(
                connection, table, staged.files, self._folder(table)
            ):
                return rows_of(staged.files)
            return _insert(connection, table, f"({query.sql})")
        if isinstance(rows, Query):
            return _insert(connection, table, f"({rows.sql})")
        connection.register("_incoming", _arrow(rows))
        try:
            return _insert(connection, table, "_incoming")
        finally:
            connection.unregister("_incoming")

    def _folder(self, table: Table) -> Path:
        return self.settings.lake_data / table.schema_name / table.table_name

    def _sync(self, files: AbstractSet[Path]) -> None:
        if not self.settings.on_object_storage:
            self._lasting |= sync_files(files, self.settings.lake_data.parent, self._lasting)

    def _data_files(self, writes: Sequence[Staged]) -> set[Path]:
        """The files in the folders of these tables. In object storage none is looked for: what it acknowledged is
        durable, and of what it did not acknowledge there is no file.
        """
        if self.settings.on_object_storage:
            return set()
        folders = {self._folder(write.table) for write in writes}
        return {file for folder in folders for file in data_files(folder)}

    def _remove_unfinished(self, writes: Sequence[Staged], before: AbstractSet[Path]) -> None:
        """Remove the file in which a rolled back transaction stopped, which DuckLake leaves behind: a disk that
        filled up would stay full. What the catalog names is kept, whoever wrote it.
        """
        unfinished = self._data_files(writes) - before
        if not unfinished:
            return
        # Where the catalog does not answer, the files stay for maintenance to find.
        with suppress(duckdb.Error, LakeError), self.connection() as connection:
            for table in {write.table.name for write in writes}:
                unfinished -= ddl.files_of(connection, table)
            for file in unfinished:
                file.unlink(missing_ok=True)

    def _attempts(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(is_conflict),
            stop=stop_after_attempt(self.settings.lake.commit_attempts),
            wait=wait_random_exponential(multiplier=0.02, max=2),
            retry_error_callback=_give_up,
            reraise=True,
        )


def _create_missing(connection: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> None:
    there = connection.execute(_TABLES_OF_LAKE).fetchall()
    missing = [table for table in tables if (table.name,) not in there]
    options = connection.execute(f"SELECT option_name FROM ducklake_options('{LAKE}')").fetchall()
    connection.execute("BEGIN")
    if ("parquet_compression",) not in options:
        connection.execute(f"CALL {LAKE}.set_option('parquet_compression', 'zstd')")
    for table in missing:
        ddl.create(connection, table)
    connection.execute("COMMIT")


def _follow_contract(connection: duckdb.DuckDBPyConnection, table: Table) -> tuple[str, ...]:
    current = ddl.lake_columns(connection, table.name)
    if not current:
        ddl.create(connection, table)
        return (f"created table {table.name}",)
    evolution = ddl.evolution(table, current)
    for statement in evolution.statements:
        connection.execute(statement)
    return evolution.changes


def _delete_replaced(connection: duckdb.DuckDBPyConnection, write: Write) -> None:
    """Delete what a write puts its rows in the place of."""
    target = ddl.qualified(write.table.name)
    if isinstance(write, ReplaceTable):
        connection.execute(f"DELETE FROM {target}")
    elif isinstance(write, ReplaceSlices) and write.slices:
        slices = write.slice_frame()
        names = list(map(ddl.identifier, slices.columns))
        same = [f"old.{name} = slice.{name}" for name in names]
        # By these alone the files are known that need not be read.
        within = [f"old.{name} BETWEEN ? AND ?" for name in names]
        bounds = [bound for column in slices for bound in (column.min(), column.max())]
        connection.register("_slices", slices)
        connection.execute(
            f"DELETE FROM {target} AS old USING _slices AS slice WHERE {' AND '.join([*same, *within])}", bounds
        )
        connection.unregister("_slices")


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, source: str) -> int:
    _refuse_other_result(connection, table, source)
    return _count(connection.execute(f"INSERT INTO {ddl.qualified(table.name)} BY NAME SELECT * FROM {source}"))


def _arrow(rows: Rows) -> Any:
    if isinstance(rows, pl.LazyFrame):
        schema = rows.collect_schema().to_frame().to_arrow().schema
        batches = (batch for frame in rows.collect_batches() for batch in frame.to_arrow().to_batches())
        return pa.RecordBatchReader.from_batches(schema, batches)
    return rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows


def _refuse_other_columns(write: Write) -> None:
    """Refuse a frame that does not fit its table, before any lock is taken."""
    if isinstance(write.rows, pl.DataFrame | pl.LazyFrame):
        _refuse(write.table, write.table.schema_differences(write.rows.collect_schema()))


def _refuse_other_result(connection: duckdb.DuckDBPyConnection, table: Table, source: str) -> None:
    """Refuse a query or stream whose columns or types are not the table's: the insert would round and cast silently."""
    found = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    wanted = {column.name: ddl.duckdb_type(column.dtype) for column in table.columns}
    _refuse(
        table,
        [f"column {name} ({kind}) is missing" for name, kind in wanted.items() if name not in found]
        + [f"column {name} is not in the contract" for name in found if name not in wanted]
        + [
            f"column {name} is {found[name]}, the contract says {kind}; cast it"
            for name, kind in wanted.items()
            if name in found and found[name] != kind
        ],
    )


def _refuse_own_rows(connection: duckdb.DuckDBPyConnection, write: Write) -> None:
    """Refuse a query over the table that it replaces: it runs after the old rows are gone and would find none."""
    if isinstance(write, Append) or not isinstance(write.rows, Query):
        return
    table = write.table
    read = {name.split(" AS ")[0].lower() for name in connection.get_table_names(write.rows.sql, qualified=True)}
    if read & {table.name, f"{LAKE}.{table.name}"}:
        raise LakeError(
            f"a query cannot replace {table.name} with rows read from it; read them first and write the frame"
        )


def _refuse(table: Table, differences: Sequence[str]) -> None:
    if differences:
        raise LakeError(f"these rows are not rows of {table.name}: {'; '.join(differences)}")


def _refuse_strays(write: Write) -> None:
    if not isinstance(write, ReplaceSlices):
        return
    strays = write.rows
    if write.slices:
        slices = write.slice_frame()
        strays = write.rows.join(slices, on=slices.columns, how="anti", nulls_equal=True)
    if strays.height:
        raise LakeError(
            f"{write.table.name}: {strays.height} rows lie outside the slices to be replaced, "
            f"for example {write.table.masked(strays.row(0, named=True))}"
        )


def _refuse_all_but_reading(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if [statement.type for statement in statements] not in ([kind] for kind in _READING):
        kinds = ", ".join(str(statement.type.name) for statement in statements) or "nothing"
        raise LakeError(f"one SELECT, DESCRIBE or EXPLAIN is expected here, and this is {kinds}: {sql}")


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise LakeError(str(error)) from error


def _select(table: str, columns: Sequence[str] | None, where: str) -> str:
    names = ", ".join(map(ddl.identifier, columns)) if columns else "*"
    return f"SELECT {names} FROM {ddl.qualified(table)}" + (f" WHERE {where}" if where else "")


def _count(result: duckdb.DuckDBPyConnection) -> int:
    row = first_row(result)
    return int(row[0]) if row else 0


def _last_own_snapshot(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The last snapshot that this connection made; none where it has made none."""
    row = first_row(connection.execute(f"SELECT id FROM ducklake_last_committed_snapshot('{LAKE}')"))
    return row[0] if row else None


def _scalar(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = first_row(connection.execute(sql))
    if row is None:
        raise LakeError(f"the lake has no answer to: {sql}")
    return int(row[0])


def _give_up(state: RetryCallState) -> Any:
    error = state.outcome.exception() if state.outcome else None
    raise LakeError(
        f"gave up after {state.attempt_number} attempts to commit beside other writers: {error}; "
        "write from fewer processes, or raise lake.commit_attempts"
    ) from error
