"""Rows that are written to Parquet files before their transaction begins, and become files of a table in it.

Here: which rows are staged, what a staged file must keep, its link in the table's folder and its entry in the catalog.
Not here: forcing it to disk before the commit, and removing it where there is none (`lakehouse.py`).

A transaction that only enters files takes a hundredth of a second, however many rows they have; one that lasts meets
other writers. DuckLake looks at nothing but the names and statistics of a file that is entered: not whether a required
column is filled, and not whether the table has the file already; and a search by statistics passes over a NaN. So the
first is checked here, each file gets a name of its own, and rows with a NaN go the long way.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retail_platform.contracts.table import Table
from retail_platform.lakehouse.connection import LAKE, LakeError
from retail_platform.lakehouse.writes import ParquetFiles, Write
from retail_platform.settings import Settings

ROWS_OF_A_LARGE_FRAME = 100_000
"""From so many rows on, Polars writes a frame: in a fourth of DuckDB's time, with files a fifth larger."""

_ROWS_OF_A_GROUP = 262_144
_PLAIN_TYPES = (pl.String, pl.Boolean, pl.Date, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.Float32, pl.Float64)
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK)
"""What a file system says that cannot give a file a second name in that folder."""


@dataclass(frozen=True)
class Staged:
    """A write that can be carried out any number of times: `files` hold its rows, or else they are those of `write`.

    Files are entered into the table as they are, unless they are only to be `read`.
    """

    write: Write
    files: tuple[Path, ...] = ()
    read: bool = False

    @property
    def table(self) -> Table:
        return self.write.table

    @property
    def at_hand(self) -> bool:
        """Whether nothing is left to be computed."""
        return bool(self.files) or isinstance(self.write.rows, pl.DataFrame)


@contextmanager
def staged(settings: Settings, writes: Sequence[Write]) -> Iterator[list[Staged]]:
    """The same writes with large frames and one-shot streams in files, which are removed at the end."""
    if not any(_goes_to_a_file(settings, write) for write in writes):
        yield [_as_it_is(write) for write in writes]
        return
    folder = settings.home / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as spool:
        yield [
            _in_file(write, Path(spool) / f"{number}.parquet") if _goes_to_a_file(settings, write) else _as_it_is(write)
            for number, write in enumerate(writes)
        ]


def enter(connection: duckdb.DuckDBPyConnection, table: Table, files: Sequence[Path], folder: Path) -> bool:
    """Make the files files of the `table`, whose own lie in `folder`, and keep them where they are as well.

    Columns and types must be the table's. False where the folder cannot have them as they are; then nothing was done.
    Raises `LakeError` where a required value is missing.
    """
    for file in files:
        _refuse_missing_values(table, file)
    folder.mkdir(parents=True, exist_ok=True)
    links: list[Path] = []
    for file in files:
        link = folder / f"{uuid4()}.parquet"
        try:
            os.link(file, link)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            for made in links:
                made.unlink()
            return False
        links.append(link)
    for link in links:
        connection.execute(
            f"CALL ducklake_add_data_files('{LAKE}', ?, ?, schema => ?, allow_missing => ?)",
            [table.table_name, str(link), table.schema_name, table.may_have_more_columns],
        )
    return True


def rows_of(files: Sequence[Path]) -> int:
    """The rows of Parquet files by their footers."""
    return sum(pq.read_metadata(file).num_rows for file in files)


def _as_it_is(write: Write) -> Staged:
    return Staged(write, write.rows.paths) if isinstance(write.rows, ParquetFiles) else Staged(write)


def _goes_to_a_file(settings: Settings, write: Write) -> bool:
    rows = write.rows
    if isinstance(rows, pl.DataFrame):
        plain = all(dtype in _PLAIN_TYPES or dtype == pl.Datetime("us") for dtype in rows.dtypes)
        large = rows.height >= ROWS_OF_A_LARGE_FRAME
        return large and plain and not settings.on_object_storage and not _has_nan(rows)
    return isinstance(rows, pa.RecordBatchReader)


def _in_file(write: Write, file: Path) -> Staged:
    rows: Any = write.rows
    if isinstance(rows, pl.DataFrame):
        write.table.arrange(rows).write_parquet(file, compression="zstd", row_group_size=_ROWS_OF_A_GROUP)
        return Staged(write, (file,))
    with_nan = False
    with pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
        for batch in rows:
            with_nan = with_nan or any(pc.any(pc.is_nan(column)).as_py() for column in _floats(batch))
            writer.write_batch(batch)
    return Staged(write, (file,), read=with_nan)


def _has_nan(frame: pl.DataFrame) -> bool:
    return any(column.is_nan().any() for column in frame.select(pl.selectors.float()))


def _floats(batch: pa.RecordBatch) -> list[pa.Array]:
    return [column for column in batch.columns if pa.types.is_floating(column.type)]


def _refuse_missing_values(table: Table, file: Path) -> None:
    facts = pq.read_metadata(file)
    required = {column.name for column in table.columns if not column.nullable}
    for group in map(facts.row_group, range(facts.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            statistics = column.statistics
            if column.path_in_schema in required and not (
                statistics is not None and statistics.has_null_count and statistics.null_count == 0
            ):
                raise LakeError(f"these rows are not rows of {table.name}: {column.path_in_schema} is missing in some")
