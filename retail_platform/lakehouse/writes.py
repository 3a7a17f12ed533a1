"""What a write is: the rows, the slice that they replace, and where they come from.

Here: the vocabulary. How a list of writes becomes one transaction is in `lakehouse.py`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import TypeAlias

import polars as pl
import pyarrow as pa

from retail_platform.contracts.table import Table

SliceValue: TypeAlias = str | int | date


@dataclass(frozen=True)
class Query:
    """Rows that the lake's own engine computes, such as a statement over Parquet files or other tables."""

    sql: str

    @classmethod
    def of_parquet(cls, *paths: Path) -> "Query":
        """The rows of Parquet files of ours with the same columns, whatever characters their paths have.

        Rows of several files can be appended only: DuckDB cannot say which tables a query over a list reads.
        """
        # DuckDB takes *, ? and [ for a pattern, unless they stand in brackets.
        literal = [re.sub(r"([*?\[])", r"[\1]", str(path)).replace("'", "''") for path in paths]
        listed = ", ".join(f"'{path}'" for path in literal)
        return cls(f"FROM read_parquet({listed})" if len(paths) == 1 else f"FROM read_parquet([{listed}])")


@dataclass(frozen=True)
class ParquetFiles:
    """Rows in Parquet files of ours, each with the columns and types of the table or, where the table may have more
    columns, some of them.

    They can be appended only. Where the lake's files lie on the same disk, the table gets each file as it is, by a
    further link to it; else its rows are copied.
    """

    paths: tuple[Path, ...]

    def query(self) -> Query:
        return Query.of_parquet(*self.paths)


Rows: TypeAlias = pl.DataFrame | pl.LazyFrame | pa.RecordBatchReader | Query


@dataclass(frozen=True)
class Append:
    """Add rows; nothing is replaced."""

    table: Table
    rows: Rows | ParquetFiles


@dataclass(frozen=True)
class ReplaceTable:
    """Put rows in the place of all that the table holds."""

    table: Table
    rows: Rows


@dataclass(frozen=True)
class ReplaceSlices:
    """Put rows in the place of the named slices, such as business days or one forecast origin.

    Each slice gives a value to the same columns. A slice without a row in `rows` becomes empty; a row outside
    every slice is refused, since writing it would double it on the next run.
    """

    table: Table
    rows: pl.DataFrame
    slices: Sequence[Mapping[str, SliceValue]]

    def slice_frame(self) -> pl.DataFrame:
        columns = list(self.slices[0])
        schema = {name: self.table.polars_schema[name] for name in columns}
        return pl.DataFrame([dict(s) for s in self.slices], schema=schema).unique(maintain_order=True)


Write: TypeAlias = Append | ReplaceTable | ReplaceSlices


@dataclass(frozen=True)
class Provenance:
    """Who writes and from what; it is kept with the snapshot and travels into the asset's metadata."""

    asset: str
    run_id: str
    code_version: str = ""
    partition: str = ""
    inputs: Mapping[str, int] = field(default_factory=dict)

    def message(self) -> str:
        return f"{self.asset}{f' [{self.partition}]' if self.partition else ''}"

    def as_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, default=str)


@dataclass(frozen=True)
class Commit:
    """What a transaction did: its snapshot, the rows written per table, the schema changes, the tries it took."""

    snapshot_id: int
    rows: Mapping[str, int]
    schema_changes: tuple[str, ...] = ()
    attempts: int = 1
