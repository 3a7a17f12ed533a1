"""How a DuckDB connection to the lake is opened.

Here: loading the extension binaries from their installed wheels, and attaching the DuckLake catalog, SQLite or
PostgreSQL. Not here: what is read or written over the connection.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import duckdb

from retail_platform.settings import Settings

LAKE = "lake"

Connect = Callable[[], duckdb.DuckDBPyConnection]


class LakeError(Exception):
    """The lake cannot do what was asked; the message names the thing, the place and the remedy."""


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
    """A plain connection, for use where no other connection factory is given."""
    return duckdb.connect(":memory:")


@contextmanager
def open_lake(
    settings: Settings, *, read_only: bool = False, at: int | None = None, connect: Connect = in_memory
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose current database is the lake, closed at the end.

    `at` shows the lake as of a snapshot and implies `read_only`. Raises `LakeError` where the catalog cannot be
    reached.
    """
    connection = connect()
    try:
        _configure(connection, settings)
        _attach(connection, settings, read_only=read_only or at is not None, at=at)
        yield connection
    finally:
        connection.close()


def _configure(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    for option, value in (
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_community_extensions", "false"),
        ("memory_limit", settings.lake.memory_limit),
        ("threads", str(settings.lake.threads)),
        ("TimeZone", "UTC"),
        ("enable_progress_bar", "false"),
    ):
        connection.execute(f"SET {option} = '{value}'")
    backend = "sqlite_scanner" if settings.catalog == "sqlite" else "postgres_scanner"
    for extension in ("ducklake", backend):
        connection.execute(f"LOAD '{_quoted(str(extension_file(extension)))}'")


def _attach(connection: duckdb.DuckDBPyConnection, settings: Settings, *, read_only: bool, at: int | None) -> None:
    options = ["DATA_INLINING_ROW_LIMIT 0"]
    if settings.catalog == "sqlite":
        if read_only and not settings.catalog_file.is_file():
            raise LakeError(
                f"there is no lake at {settings.home}; fill one with `retail-platform demo`, or with "
                "`retail-platform ingest` after dropping files into the landing zone"
            )
        address = f"sqlite:{settings.catalog_file}"
        # The catalog file lies beside the data it describes, so both may move together.
        options += ["META_JOURNAL_MODE 'WAL'", "META_BUSY_TIMEOUT 5000", "OVERRIDE_DATA_PATH true"]
    else:
        address = f"postgres:{settings.catalog}"
    if not read_only:
        settings.lake_data.mkdir(parents=True, exist_ok=True)
    options.append(f"DATA_PATH '{_quoted(str(settings.lake_data))}/'")
    if at is not None:
        options.append(f"SNAPSHOT_VERSION {int(at)}")
    elif read_only:
        options.append("READ_ONLY")
    try:
        connection.execute(f"ATTACH 'ducklake:{_quoted(address)}' AS {LAKE} ({', '.join(options)})")
    except duckdb.Error as error:
        raise LakeError(f"the lake's catalog cannot be opened: {_without_password(str(error), settings)}") from error
    connection.execute(f"USE {LAKE}")


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _without_password(text: str, settings: Settings) -> str:
    return text.replace(settings.catalog, "the catalog of RETAIL_CATALOG") if settings.catalog != "sqlite" else text
