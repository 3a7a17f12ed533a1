"""The catalog of the lake as one SQLite file: taken out of its database, and put into one again.

DuckLake keeps the same tables in SQLite and in PostgreSQL, so that a copy made of one can be put into the other. Not
here: the data files that it names (`backup.py`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from retail_platform.lakehouse import ddl
from retail_platform.lakehouse.connection import (
    LakeError,
    NoLakeError,
    ask_sqlite,
    open_lake,
    psycopg_module,
    unreachable,
)
from retail_platform.lakehouse.durability import sync_files
from retail_platform.settings import Settings

_IN_SQLITE = {
    # What SQLite has no type for, as DuckLake itself writes it there.
    "timestamp with time zone": "{}::text",
    "uuid": "{}::text",
    "boolean": "{}::int",
}

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'ducklake!_%' ESCAPE '!' ORDER BY name"


def catalog_exists(settings: Settings) -> bool:
    """Whether there is a lake already. Raises `LakeError` where the catalog's server does not answer."""
    if settings.catalog == "sqlite":
        return settings.catalog_file.exists()
    try:
        with open_lake(settings, read_only=True):
            return True
    except NoLakeError:
        return False


def save_catalog(settings: Settings, file: Path) -> None:
    """Write the catalog as of one moment to a new SQLite file, while others read and write it."""
    if settings.catalog == "sqlite":
        if not settings.catalog_file.is_file():
            raise NoLakeError(f"there is no lake at {settings.home}")
        ask_sqlite("copy", settings.catalog_file, file)
    else:
        _save_from_postgres(settings, file)
    with closing(sqlite3.connect(file)) as copy:
        # Files that no snapshot needs any more are not part of a copy.
        copy.execute("DELETE FROM ducklake_files_scheduled_for_deletion")
        copy.commit()
        copy.execute("VACUUM")
    sync_files({file}, file.parent)


def load_catalog(settings: Settings, file: Path) -> None:
    """Make the saved catalog that of the lake, whose data files lie where the settings have them now.

    The catalog is there whole, or not at all. Raises `LakeError` where there is a lake already, or where the copy is
    of another format.
    """
    if catalog_exists(settings):
        raise LakeError("there is a lake already, which a restored catalog would replace")
    settings.home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=settings.home, prefix=".restore.") as folder:
        draft = Path(folder) / "catalog.sqlite"
        draft.write_bytes(file.read_bytes())
        with closing(sqlite3.connect(draft)) as copy:
            copy.execute(
                "UPDATE ducklake_metadata SET value = ? WHERE key = 'data_path'", [f"{settings.data_location}/"]
            )
            copy.commit()
            if settings.catalog != "sqlite":
                _load_into_postgres(settings, copy)
                return
            # A reader could not change the mode.
            copy.execute("PRAGMA journal_mode = WAL")
        sync_files({draft}, settings.home)
        # Journals of a catalog that is gone would be taken for journals of this one.
        for journal in ("-wal", "-shm", "-journal"):
            Path(f"{settings.catalog_file}{journal}").unlink(missing_ok=True)
        draft.replace(settings.catalog_file)
        sync_files(set(), settings.home)


def set_catalog_aside(settings: Settings, folder: Path) -> None:
    """Move the catalog out of the way and keep it: into `folder`, or into a schema of that name in PostgreSQL."""
    if settings.catalog == "sqlite":
        for file in settings.home.glob(f"{settings.catalog_file.name}*"):
            file.rename(folder / file.name)
        return
    seconds = settings.lake.lock_timeout_seconds
    with _postgres(settings) as connection:
        connection.execute(f"SET LOCAL lock_timeout = '{int(seconds * 1000)}ms'")
        connection.execute(f"CREATE SCHEMA {ddl.identifier(folder.name)}")
        for table in _tables_of_postgres(connection):
            try:
                connection.execute(f"ALTER TABLE {ddl.identifier(table)} SET SCHEMA {ddl.identifier(folder.name)}")
            except psycopg_module().errors.LockNotAvailable:
                raise LakeError(
                    f"somebody reads the catalog's table {table} for more than {seconds:g} s, so that it cannot be set "
                    "aside; end what is connected to the catalog and try again"
                ) from None


def _save_from_postgres(settings: Settings, file: Path) -> None:
    with _postgres(settings) as source:
        source.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        tables = _tables_of_postgres(source)
        if not tables:
            raise NoLakeError("there is no lake in the catalog of RETAIL_CATALOG")
        _empty_catalog(file)
        with closing(sqlite3.connect(file)) as target:
            for table in tables:
                columns = _columns_of_postgres(source, table)
                names = ", ".join(map(ddl.identifier, columns))
                values = ", ".join(_IN_SQLITE.get(kind, "{}").format(ddl.identifier(c)) for c, kind in columns.items())
                rows = source.execute(f"SELECT {values} FROM {ddl.identifier(table)}")
                places = ", ".join("?" for _ in columns)
                try:
                    target.execute(f"DELETE FROM {ddl.identifier(table)}")
                    target.executemany(f"INSERT INTO {ddl.identifier(table)} ({names}) VALUES ({places})", rows)
                except sqlite3.OperationalError as error:
                    raise LakeError(f"the catalog's table {table} has no counterpart in SQLite: {error}") from error
            target.commit()


def _load_into_postgres(settings: Settings, copy: sqlite3.Connection) -> None:
    # DuckLake makes the tables, of its present format; their rows then take the place of the empty lake's.
    with open_lake(settings, create=True):
        pass
    with _postgres(settings) as target:
        there = _tables_of_postgres(target)
        _refuse_other_format(target, copy)
        for (table,) in copy.execute(_TABLES).fetchall():
            columns = [row[1] for row in copy.execute(f"PRAGMA table_info({ddl.identifier(table)})")]
            names = ", ".join(map(ddl.identifier, columns))
            rows = copy.execute(f"SELECT {names} FROM {ddl.identifier(table)}").fetchall()
            if table not in there:
                if rows:
                    raise LakeError(f"the catalog's table {table} has no counterpart in PostgreSQL")
                continue
            target.execute(f"DELETE FROM {ddl.identifier(table)}")
            with target.cursor().copy(f"COPY {ddl.identifier(table)} ({names}) FROM STDIN") as stream:
                for row in rows:
                    stream.write_row(row)


def _refuse_other_format(target: Any, copy: sqlite3.Connection) -> None:
    version = "SELECT value FROM ducklake_metadata WHERE key = 'version'"
    here, saved = target.execute(version).fetchone(), copy.execute(version).fetchone()
    if here != saved:
        raise LakeError(
            f"the saved catalog is of DuckLake format {saved[0]}, this installation makes {here[0]}; restore with the "
            "version of the platform that the backup's manifest names, then upgrade"
        )


def _empty_catalog(file: Path) -> None:
    """A catalog in SQLite with DuckLake's tables and nothing in them but an empty lake."""
    with TemporaryDirectory(dir=file.parent, prefix=".catalog.") as home:
        settings = Settings(home=Path(home))
        with open_lake(settings, create=True):
            pass
        ask_sqlite("copy", settings.catalog_file, file)


def _postgres(settings: Settings) -> Any:
    psycopg = psycopg_module()
    try:
        return psycopg.connect(settings.catalog, options="-c TimeZone=UTC")
    except psycopg.OperationalError as error:
        raise unreachable(error) from error


def _tables_of_postgres(connection: Any) -> list[str]:
    rows: Iterator[tuple[str]] = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND starts_with(tablename, 'ducklake_') "
        "ORDER BY tablename"
    )
    return [table for (table,) in rows]


def _columns_of_postgres(connection: Any, table: str) -> dict[str, str]:
    rows: Iterator[tuple[str, str]] = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = %s ORDER BY ordinal_position",
        [table],
    )
    return dict(rows)
