"""Rows of a table counted by some of its columns, file by file: what was counted of a file is remembered.

A data file is never changed: what deletes rows of it adds a delete file beside, and that is never changed either. So
the counts of the two together hold for as long as the table consists of them, and only files that are new since the
last count are read. The memory is a Parquet file in the cache folder of the home; without it everything is counted.

Here: the counts and their memory. Not here: what is made of them.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import polars as pl

from retail_platform.contracts.table import TABLES
from retail_platform.lakehouse import ddl
from retail_platform.lakehouse.connection import LAKE, LakeError
from retail_platform.lakehouse.lakehouse import Lakehouse
from retail_platform.settings import Settings

MOST_FILES_BY_NAME = 200
"""Of more new files than these, all files are counted: a statement cannot name any number of them."""

_KEY = ("data_file", "delete_file")

Counted: TypeAlias = tuple[str, Sequence[str]]
"""A table, and the columns by which its rows are counted."""


def counts_of(lake: Lakehouse, counted: Sequence[Counted]) -> list[pl.DataFrame]:
    """For each pair of a table and its columns: those columns and `rows`, one row for each combination that is there.

    All tables are counted in one state of the lake. Raises `LakeError` where the catalog says that a table has another
    number of rows than were counted in its files.
    """
    remembered = [_remembered(lake.settings, table, columns) for table, columns in counted]
    tables = _stored(lake, [table for table, _ in counted])
    while True:
        found = [
            _counts(lake, table, columns, memory, tables[table])
            for (table, columns), memory in zip(counted, remembered, strict=True)
        ]
        if all(memory is counts for memory, counts in zip(remembered, found, strict=True)):
            break
        # Whoever committed meanwhile may have changed what was counted in the middle of it.
        before, tables = tables, _stored(lake, tables)
        if all(stored.files.equals(before[table].files) for table, stored in tables.items()):
            break
    for (table, columns), memory, counts in zip(counted, remembered, found, strict=True):
        rows = int(counts["rows"].sum())
        if rows != tables[table].rows:
            raise LakeError(
                f"{rows} rows were counted in the files of {table} and the catalog says {tables[table].rows}; "
                "`retail-platform lake fsck` tells which file disagrees"
            )
        if counts is not memory:
            _remember(lake.settings, table, columns, counts)
    return [
        counts.filter(pl.col("rows") > 0).group_by(columns).agg(pl.col("rows").sum())
        for (_, columns), counts in zip(counted, found, strict=True)
    ]


def forget(settings: Settings) -> None:
    """Count everything anew the next time."""
    for file in _folder(settings).glob("*.parquet"):
        file.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Stored:
    """A table in one state of the lake: its files (data_file, and delete_file, empty where there is none), and how many
    rows the catalog says there are, which knows it without reading them."""

    files: pl.DataFrame
    rows: int


def _stored(lake: Lakehouse, tables: Collection[str]) -> dict[str, _Stored]:
    """The tables by name, all in one state of the lake."""
    listings = [
        f"SELECT '{table}' AS name, data_file, coalesce(delete_file, '') AS delete_file, NULL AS rows "
        f"FROM ducklake_list_files('{LAKE}', '{table.split('.')[1]}', schema => '{table.split('.')[0]}')"
        for table in tables
    ]
    counts = [f"SELECT '{table}', NULL, NULL, count(*) FROM {ddl.qualified(table)}" for table in tables]
    found = lake.query(" UNION ALL ".join([*listings, *counts]))
    rows = dict(found.filter(pl.col("rows").is_not_null()).select("name", "rows").iter_rows())
    files = found.filter(pl.col("rows").is_null()).sort("name", *_KEY)
    return {table: _Stored(files.filter(name=table).select(_KEY), rows[table]) for table in tables}


def _counts(
    lake: Lakehouse, table: str, columns: Sequence[str], remembered: pl.DataFrame, stored: _Stored
) -> pl.DataFrame:
    """The counts of the table's files, with their names; `remembered` itself where it has them all and no other."""
    found = remembered
    for memory in (remembered, remembered.clear()):
        known = memory.join(stored.files, on=_KEY, how="semi", maintain_order="left")
        new = stored.files.join(memory, on=_KEY, how="anti", maintain_order="left")
        if new.is_empty() and known.height == memory.height:
            found = memory
        else:
            found = pl.concat([known, _counted_now(lake, table, columns, new).select(known.columns)])
        if found["rows"].sum() == stored.rows:
            break
    return found


def _counted_now(lake: Lakehouse, table: str, columns: Sequence[str], files: pl.DataFrame) -> pl.DataFrame:
    names = files["data_file"].to_list()
    of_files = f"WHERE filename IN ({', '.join('?' for _ in names)})" if len(names) <= MOST_FILES_BY_NAME else ""
    listed = ", ".join(map(ddl.identifier, columns))
    sql = (
        f"SELECT filename AS data_file, {listed}, count(*) AS rows FROM {ddl.qualified(table)} {of_files} GROUP BY ALL"
    )
    counted = lake.query(sql, names if of_files else []) if names else _empty(table, columns).drop("delete_file")
    # A file of which every row is deleted is counted as well.
    return files.join(counted, on="data_file", how="left").with_columns(pl.col("rows").fill_null(0))


def _empty(table: str, columns: Sequence[str]) -> pl.DataFrame:
    types = TABLES[table].polars_schema
    named = {name: types[name] for name in columns}
    return pl.DataFrame(schema={**dict.fromkeys(_KEY, pl.String()), **named, "rows": pl.Int64()})


def _remembered(settings: Settings, table: str, columns: Sequence[str]) -> pl.DataFrame:
    nothing = _empty(table, columns)
    # Missing, cut off, or of other columns: it is only a memory.
    with suppress(OSError, pl.exceptions.PolarsError):
        memory = pl.read_parquet(_file(settings, table, columns), glob=False)
        return memory if memory.schema == nothing.schema else nothing
    return nothing


def _remember(settings: Settings, table: str, columns: Sequence[str], counts: pl.DataFrame) -> None:
    part = _folder(settings) / f".{uuid4()}.part"
    # Where the home cannot be written, everything is counted the next time.
    with suppress(OSError):
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            counts.write_parquet(part)
            part.replace(_file(settings, table, columns))
        finally:
            part.unlink(missing_ok=True)


def _folder(settings: Settings) -> Path:
    return settings.home / "cache" / "counts"


def _file(settings: Settings, table: str, columns: Sequence[str]) -> Path:
    return _folder(settings) / f"{table}-{'-'.join(columns)}.parquet"
