"""How a DuckDB connection to the lake is opened.

Here: loading the extension binaries from their installed wheels, and attaching the DuckLake catalog, in SQLite or
PostgreSQL, with its data files in a folder or in object storage. Not here: what is read or written over the connection.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import duckdb
from pydantic import SecretStr

from retail_platform.settings import Settings

LAKE = "lake"

CATALOG = f"__ducklake_metadata_{LAKE}"
"""DuckDB's name of the database that the catalog's own tables are in."""

Connect = Callable[[], duckdb.DuckDBPyConnection]
Answer = TypeVar("Answer")


class LakeError(Exception):
    """The lake cannot do what was asked; the message names the thing, the place and the remedy."""


class NoLakeError(LakeError):
    """There is no lake yet at the home folder or in the catalog database."""


class NoSnapshotError(LakeError):
    """The lake cannot be read as of this snapshot."""


def extension_file(name: str) -> Path:
    """The signed binary of a DuckDB extension inside its installed wheel, so that nothing is downloaded."""
    spec = find_spec(f"duckdb_extension_{name}")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        file = Path(folder) / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
        if file.is_file():
            return file
    raise LakeError(
        f"DuckDB extension {name} for version {duckdb.__version__} is not installed; "
        f"install duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__} beside duckdb=={duckdb.__version__}"
    )


def in_memory() -> duckdb.DuckDBPyConnection:
    """A plain connection, for use where no other connection factory is given.

    Checking the signatures of the extension binaries costs 0.3 s a connection, ten times the rest of it. They
    are as trustworthy as the DuckDB module itself, which lies in the folder beside them and is not checked, so
    they are loaded unchecked; `open_lake` forbids unsigned extensions again before anything else runs.
    """
    return duckdb.connect(":memory:", config={"allow_unsigned_extensions": "true"})


@contextmanager
def open_lake(
    settings: Settings,
    *,
    read_only: bool = False,
    create: bool = False,
    at: int | None = None,
    connect: Connect = in_memory,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose current database is the lake, closed at the end.

    `at` shows the lake as of a snapshot and implies `read_only`. Raises `NoLakeError` where there is none and
    `create` is not given, and `LakeError` where the catalog cannot be reached. Creating is not safe beside
    another process that creates; `Lakehouse` holds a lock around it.
    """
    if settings.catalog == "sqlite" and not create and not settings.catalog_file.is_file():
        raise _no_lake(settings)
    connection = connect()
    try:
        _configure(connection, settings)
        _attach(connection, settings, read_only=read_only or at is not None, create=create, at=at)
        yield connection
    finally:
        connection.close()


def confine(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """From here on the connection reads the lake's own files only, and loads and changes nothing."""
    connection.execute(f"SET allowed_directories = [{text(f'{settings.data_location}/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


class Reader:
    """A confined connection for many short reads, opened with the first.

    Opening the lake costs ten times a small read, and a run makes dozens. Every read is a transaction of its own
    and sees the newest commit of any process. The connection is opened anew when the catalog file was replaced by
    another one, and when the catalog's server has gone away.
    """

    def __init__(self, settings: Settings, connect: Connect = in_memory) -> None:
        self._settings = settings
        self._connect = connect
        self._lock = Lock()
        self._opened: ExitStack | None = None
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._catalog: tuple[int, int] | None = None
        self._idle: list[duckdb.DuckDBPyConnection] = []

    def ask(self, question: Callable[[duckdb.DuckDBPyConnection], Answer]) -> Answer:
        """The answer to `question`, which is asked a second time where the connection turns out to be dead."""
        is_new = True
        try:
            with self._borrowed() as (cursor, is_new):
                return question(cursor)
        except (duckdb.IOException, duckdb.FatalException, duckdb.InternalException):
            self.close()
            if is_new:
                raise
        with self._borrowed() as (cursor, _):
            return question(cursor)

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        opened, self._opened, self._connection = self._opened, None, None
        for cursor in self._idle:
            cursor.close()
        self._idle.clear()
        if opened is not None:
            opened.close()

    @contextmanager
    def _borrowed(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, bool]]:
        """A cursor for one question, and whether the connection was opened for it; kept for the next where it was
        answered.
        """
        with self._lock:
            connection, is_new = self._connected()
            cursor = self._idle.pop() if self._idle else _cursor(connection)
        try:
            yield cursor, is_new
        except BaseException:
            cursor.close()
            raise
        with self._lock:
            if connection is self._connection:
                self._idle.append(cursor)
                return
        cursor.close()

    def _connected(self) -> tuple[duckdb.DuckDBPyConnection, bool]:
        catalog = catalog_identity(self._settings)
        if self._connection is not None and catalog == self._catalog:
            return self._connection, False
        self._close()
        with ExitStack() as stack:
            connection = stack.enter_context(open_lake(self._settings, read_only=True, connect=self._connect))
            # What was read would otherwise stay in memory for as long as the connection.
            connection.execute("SET enable_external_file_cache = false")
            confine(connection, self._settings)
            self._connection, self._catalog, self._opened = connection, catalog, stack.pop_all()
        return connection, True


def _cursor(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    cursor = connection.cursor()
    cursor.execute(f"USE {LAKE}")
    return cursor


class Writer:
    """The connection of the last commit, or of the creation, kept for the next: opening the lake costs more than a
    small commit.

    A commit has the connection for itself; one that begins meanwhile opens another. What a failed commit used is
    closed, since an error may leave a connection unusable, but not after a conflict; so is one whose catalog file was
    replaced by another one.
    """

    def __init__(self, settings: Settings, connect: Connect = in_memory) -> None:
        self._settings = settings
        self._connect = connect
        self._lock = Lock()
        # By process: a connection that a fork inherited can neither be used nor closed there.
        self._kept: dict[int, Session] = {}

    @contextmanager
    def begin(self) -> Iterator["Session"]:
        """A connection with an open transaction, which is rolled back where the block raises."""
        taken = self._take()
        session = taken or self._open()
        try:
            if taken is None:
                session.connection.execute("BEGIN")
            yield session
        except BaseException as error:
            with suppress(duckdb.Error):
                session.connection.execute("ROLLBACK")
            if is_conflict(error):
                self._keep(session)
            else:
                session.opened.close()
            raise
        self._keep(session)

    @contextmanager
    def creating(self) -> Iterator["Session"]:
        """A connection to the lake, which is made where there is none; no transaction is open. The first commit goes
        over it. Not safe beside another process that creates: `Lakehouse` holds a lock around it.
        """
        session = self._open(create=True)
        try:
            yield session
        except BaseException:
            session.opened.close()
            raise
        self._keep(session)

    def _open(self, *, create: bool = False) -> "Session":
        with ExitStack() as stack:
            connection = stack.enter_context(open_lake(self._settings, create=create, connect=self._connect))
            # What was read would otherwise stay in memory for as long as the connection.
            connection.execute("SET enable_external_file_cache = false")
            return Session(connection, stack.pop_all(), catalog_identity(self._settings))

    def _take(self) -> "Session | None":
        with self._lock:
            kept = self._kept.pop(os.getpid(), None)
        if kept is None or (kept.catalog == catalog_identity(self._settings) and self._began(kept)):
            return kept
        kept.opened.close()
        return None

    def _began(self, session: "Session") -> bool:
        """Begin the transaction, unless the catalog's server has gone away; a file that is there answers.

        The question is asked within the transaction, which asks it anyway: one before it would cost as much as a
        quarter of a commit.
        """
        session.connection.execute("BEGIN")
        if self._settings.catalog == "sqlite":
            return True
        try:
            session.connection.execute(f"SELECT id FROM ducklake_current_snapshot('{LAKE}')").fetchall()
        except duckdb.Error:
            return False
        return True

    def _keep(self, session: "Session") -> None:
        with self._lock:
            former = self._kept.pop(os.getpid(), None)
            self._kept[os.getpid()] = session
        if former is not None:
            former.opened.close()


@dataclass
class Session:
    """An open connection for writing, what closes it, and the catalog file that it was opened with.

    `last_snapshot` is the last that was committed over this connection.
    """

    connection: duckdb.DuckDBPyConnection
    opened: ExitStack
    catalog: tuple[int, int] | None
    last_snapshot: int | None = None


def first_row(result: duckdb.DuckDBPyConnection) -> tuple[Any, ...] | None:
    """The first row of a small result, all of which is fetched: a result that is left half read keeps its transaction
    open, and in PostgreSQL the catalog's tables locked.
    """
    rows = result.fetchall()
    return rows[0] if rows else None


def ask_sqlite(job: Literal["check", "copy"], *files: Path) -> str:
    """What SQLite's own library says of the catalog, or copies of it, in a process of its own.

    Raises `LakeError` with SQLite's words. `sqlite_process.py` says why no other code of ours may open the file.
    """
    script = Path(__file__).with_name("sqlite_process.py")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-I", str(script), job, *map(str, files)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise LakeError(done.stderr.strip() or f"SQLite ended with {done.returncode}")
    return done.stdout


def catalog_identity(settings: Settings) -> tuple[int, int] | None:
    """Which file the catalog is; null where it is a server or missing."""
    if settings.catalog != "sqlite" or not settings.catalog_file.exists():
        return None
    facts = settings.catalog_file.stat()
    return facts.st_dev, facts.st_ino


def is_conflict(error: BaseException) -> bool:
    """Whether DuckLake or its catalog refused a transaction because of another one, so that it may be tried again."""
    return isinstance(error, duckdb.Error) and any(words in str(error).lower() for words in _CONFLICTS)


def psycopg_module() -> Any:
    """psycopg, which is installed only where PostgreSQL is used."""
    try:
        import psycopg
    except ImportError:
        raise LakeError("a PostgreSQL catalog needs psycopg; install retail-platform[postgres]") from None
    return psycopg


_CONFLICTS = (
    "database is locked",
    "transaction conflict",
    "could not serialize",
    "deadlock detected",
    "duplicate key value violates unique constraint",
    "unique constraint failed",
)


def _configure(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    extensions = ["ducklake", "sqlite_scanner" if settings.catalog == "sqlite" else "postgres_scanner"]
    if settings.on_object_storage:
        extensions.append("httpfs")
    for extension in extensions:
        connection.execute(f"LOAD {text(str(extension_file(extension)))}")
    for option, value in (
        ("allow_unsigned_extensions", "false"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("allow_persistent_secrets", "false"),
        ("memory_limit", settings.lake.memory_limit),
        ("threads", str(settings.lake.threads)),
        ("temp_directory", str(settings.home / "spool")),
        ("TimeZone", "UTC"),
        ("enable_progress_bar", "false"),
        # Of two commits at once the catalog refuses one, which DuckLake repeats; it would wait 100 ms first.
        ("ducklake_retry_wait_ms", "10"),
    ):
        connection.execute(f"SET {option} = {text(value)}")
    if settings.on_object_storage:
        _give_access_to_object_storage(connection, settings)


def _give_access_to_object_storage(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    lake = settings.lake
    scheme, _, host = lake.s3_endpoint.partition("://")
    options = {
        "KEY_ID": secret(settings.s3_access_key),
        "SECRET": secret(settings.s3_secret_key),
        "SESSION_TOKEN": secret(settings.s3_session_token),
        "REGION": lake.s3_region,
        "ENDPOINT": host,
        "URL_STYLE": lake.s3_url_style,
        "SCOPE": f"{settings.data_location}/",
    }
    given = ", ".join(f"{name} {text(value)}" for name, value in options.items() if value)
    connection.execute(f"CREATE SECRET data_files (TYPE s3, {given}, USE_SSL {scheme != 'http'})")


def _attach(
    connection: duckdb.DuckDBPyConnection, settings: Settings, *, read_only: bool, create: bool, at: int | None
) -> None:
    if settings.catalog == "sqlite":
        address, options = _sqlite_catalog(settings)
    else:
        address, options = _postgres_catalog(connection, settings)
    options += ["DATA_INLINING_ROW_LIMIT 0", f"DATA_PATH {text(f'{settings.data_location}/')}"]
    if create:
        settings.home.mkdir(parents=True, exist_ok=True)
        if not settings.on_object_storage and not settings.catalog_file.is_file():
            settings.lake_data.mkdir(parents=True, exist_ok=True)
    else:
        options.append("CREATE_IF_NOT_EXISTS false")
    if at is not None:
        options.append(f"SNAPSHOT_VERSION {int(at)}")
    elif read_only:
        options.append("READ_ONLY")
    try:
        connection.execute(f"ATTACH {text(f'ducklake:{address}')} AS {LAKE} ({', '.join(options)})")
    except duckdb.Error as error:
        if is_conflict(error):
            raise
        raise _cannot_open(str(error), settings, at) from error
    connection.execute(f"USE {LAKE}")


def _sqlite_catalog(settings: Settings) -> tuple[str, list[str]]:
    options = ["META_JOURNAL_MODE 'WAL'", "META_BUSY_TIMEOUT 5000"]
    if not settings.lake.data and settings.lake_data.is_dir():
        # The catalog file lies beside the data that it describes, so both may move together.
        options.append("OVERRIDE_DATA_PATH true")
    return f"sqlite:{settings.catalog_file}", options


def _postgres_catalog(connection: duckdb.DuckDBPyConnection, settings: Settings) -> tuple[str, list[str]]:
    """The catalog's address without its password, which goes into a secret of this connection instead.

    Whatever is part of the address can be read with SQL and is repeated in error messages.
    """
    psycopg = psycopg_module()
    try:
        address = psycopg.conninfo.conninfo_to_dict(settings.catalog)
    except psycopg.ProgrammingError:
        raise LakeError(
            "the catalog's address cannot be read; it has the form postgresql://user:password@host:port/database, "
            "with special characters of the password percent-encoded"
        ) from None
    password = address.pop("password", None)
    given = "" if password is None else f", PASSWORD {text(str(password))}"
    # Also where there is none, and PGPASSWORD or a password file may have it: DuckDB would look for one among secrets
    # on disk, which are switched off, and fail.
    connection.execute(f"CREATE SECRET catalog_password (TYPE postgres{given})")
    return f"postgres:{psycopg.conninfo.make_conninfo(**address)}", ["META_SECRET 'catalog_password'"]


def _cannot_open(message: str, settings: Settings, at: int | None) -> LakeError:
    if "creating a new DuckLake is explicitly disabled" in message:
        return _no_lake(settings)
    if "No snapshot found" in message:
        return NoSnapshotError(
            f"there is no snapshot {at} in the lake; `retail-platform lake snapshots` lists those that can be read"
        )
    if "DATA_PATH" in message:
        return LakeError(
            f"the lake's files do not lie at {settings.data_location}, where lake.data has them: {message}; set "
            "lake.data to where they lie, or move them with `retail-platform lake backup` and `lake restore`"
        )
    if "version mismatch" in message:
        return LakeError(
            f"the lake is of another format than this version of the platform: {message.partition(' To ')[0]} "
            "Nothing was changed; docs/operations.md says how to upgrade"
        )
    if "unable to open database file" in message:
        return LakeError(
            f"the lake's catalog {settings.catalog_file} cannot be opened: {message}; whoever reads it must be able "
            "to write to its folder, where SQLite keeps a log beside it, and to open a few more files"
        )
    return unreachable(message)


def unreachable(error: object) -> LakeError:
    """The catalog does not answer, for the reason in `error`, in one line."""
    return LakeError(
        f"the lake's catalog cannot be opened: {' '.join(str(error).split())}; look whether its server runs and "
        "whether the setting `catalog` is right"
    )


def _no_lake(settings: Settings) -> NoLakeError:
    place = settings.home if settings.catalog == "sqlite" else "the catalog of RETAIL_CATALOG"
    return NoLakeError(
        f"there is no lake at {place}; fill one with `retail-platform demo`, or with "
        "`retail-platform ingest` after dropping files into the landing zone"
    )


def secret(value: SecretStr | None) -> str:
    """A secret in the clear, empty where there is none."""
    return value.get_secret_value() if value else ""


def text(value: str) -> str:
    """A SQL string literal."""
    return "'" + value.replace("'", "''") + "'"
