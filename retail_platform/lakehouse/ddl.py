"""How a contract becomes a lake table, and how a lake table follows a changed contract.

A table evolves in place only where that loses nothing: a new nullable column is added, a number is widened, a
column that had to be filled may now be empty.
Every other difference is refused, and all differences are named at once.
"""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from retail_platform.contracts.table import Table
from retail_platform.lakehouse.connection import CATALOG, LAKE, LakeError, text

_SIMPLE_TYPES: dict[type[pl.DataType] | pl.DataType, str] = {
    pl.String: "VARCHAR",
    pl.Boolean: "BOOLEAN",
    pl.Date: "DATE",
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "UTINYINT",
    pl.UInt16: "USMALLINT",
    pl.UInt32: "UINTEGER",
    pl.UInt64: "UBIGINT",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
}

_WIDER: dict[str, tuple[str, ...]] = {
    "TINYINT": ("SMALLINT", "INTEGER", "BIGINT"),
    "SMALLINT": ("INTEGER", "BIGINT"),
    "INTEGER": ("BIGINT",),
    "UTINYINT": ("USMALLINT", "UINTEGER", "UBIGINT"),
    "USMALLINT": ("UINTEGER", "UBIGINT"),
    "UINTEGER": ("UBIGINT",),
    "FLOAT": ("DOUBLE",),
}


class SchemaChangeError(LakeError):
    """A table in the lake cannot follow its contract without losing something."""


@dataclass(frozen=True)
class LakeColumn:
    """A column as it stands in the lake, with DuckDB's name of its type."""

    type: str
    nullable: bool


@dataclass(frozen=True)
class Evolution:
    """The statements that bring a lake table to its contract, and what they do in words."""

    statements: tuple[str, ...]
    changes: tuple[str, ...]


def duckdb_type(dtype: pl.DataType) -> str:
    """DuckDB's name of a Polars type; raises `LakeError` for a type that the lake does not hold."""
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMP" if dtype.time_zone is None else "TIMESTAMP WITH TIME ZONE"
    if isinstance(dtype, pl.List):
        return f"{duckdb_type(_instance(dtype.inner))}[]"
    for known, name in _SIMPLE_TYPES.items():
        if dtype == known:
            return name
    raise LakeError(f"the lake has no type for {dtype}")


def create(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Create an empty table, and its schema where that is missing; nullability is the contract's."""
    columns = ", ".join(
        f"{identifier(c.name)} {duckdb_type(c.dtype)}{'' if c.nullable else ' NOT NULL'}" for c in table.columns
    )
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {LAKE}.{identifier(table.schema_name)}")
    connection.execute(f"CREATE TABLE {qualified(table.name)} ({columns})")


def lake_columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, LakeColumn]:
    """The columns of a table in the lake by name, in order; empty where there is no such table."""
    # Asked for one table, since duckdb_columns() looks at every table of every schema first.
    sql = f'SELECT name, type, NOT "notnull" FROM pragma_table_info({text(f"{LAKE}.{table}")}) ORDER BY cid'
    try:
        rows = connection.execute(sql).fetchall()
    except duckdb.CatalogException:
        return {}
    return {column: LakeColumn(data_type, nullable) for column, data_type, nullable in rows}


def files_of(connection: duckdb.DuckDBPyConnection, table: str) -> set[Path]:
    """Every data file and delete file that the present snapshot of a table consists of."""
    if not lake_columns(connection, table):
        return set()
    schema, name = table.split(".")
    files = connection.execute(
        f"SELECT data_file, delete_file FROM ducklake_list_files('{LAKE}', ?, schema => ?)", [name, schema]
    ).fetchall()
    return {Path(file) for pair in files for file in pair if file}


def may_hold_rows(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether the snapshot that a transaction sees can have rows of a table: it has files, or there are rows in the
    catalog itself, where other clients of DuckLake keep a few.
    """
    schema, name = table.split(".")
    found = connection.execute(
        f"SELECT EXISTS (FROM ducklake_list_files('{LAKE}', ?, schema => ?)) "
        f"OR EXISTS (FROM {CATALOG}.ducklake_inlined_data_tables)",
        [name, schema],
    )
    return bool(found.fetchall()[0][0])


def evolution(table: Table, current: dict[str, LakeColumn]) -> Evolution:
    """What must change in a lake table with columns `current` to keep the contract.

    Raises `SchemaChangeError` with every difference that would lose or invent something.
    """
    alter = f"ALTER TABLE {qualified(table.name)}"
    statements, changes, refused = [], [], []
    wanted = {c.name: c for c in table.columns}
    refused += [
        f"column {name} stands in the lake and not in the contract"
        for name, present in current.items()
        if name not in wanted and not (table.may_have_more_columns and present.nullable)
    ]
    for name, spec in wanted.items():
        wanted_type, present = duckdb_type(spec.dtype), current.get(name)
        if present is None:
            if spec.nullable:
                statements.append(f"{alter} ADD COLUMN {identifier(name)} {wanted_type}")
                changes.append(f"added column {name} {wanted_type}")
            else:
                refused.append(f"new column {name} must be nullable: the rows already there have no value for it")
            continue
        if present.type != wanted_type:
            if wanted_type in _WIDER.get(present.type, ()):
                statements.append(f"{alter} ALTER COLUMN {identifier(name)} SET DATA TYPE {wanted_type}")
                changes.append(f"widened column {name} from {present.type} to {wanted_type}")
            else:
                refused.append(f"column {name} is {present.type} in the lake and {wanted_type} in the contract")
        if spec.nullable and not present.nullable:
            statements.append(f"{alter} ALTER COLUMN {identifier(name)} DROP NOT NULL")
            changes.append(f"column {name} may be empty")
        elif present.nullable and not spec.nullable:
            refused.append(f"column {name} may be empty in the lake and must not be in the contract")
    if refused:
        raise SchemaChangeError(
            f"table {table.name} cannot follow its contract in place: {'; '.join(refused)}. Write the new shape to a "
            "new table, or rebuild this one after dropping it"
        )
    return Evolution(tuple(statements), tuple(changes))


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def qualified(table: str) -> str:
    return ".".join(identifier(part) for part in (LAKE, *table.split(".")))


def _instance(dtype: object) -> pl.DataType:
    return dtype() if isinstance(dtype, type) else dtype  # type: ignore[return-value]
