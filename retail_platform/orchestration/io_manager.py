"""How an asset's frame reaches its table and comes back.

The ready-made DuckDB IO managers delete and insert without a transaction and insert by position; this one hands
the frame to the lakehouse as one transaction that replaces exactly the slice that the contract names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa

from retail_platform.contracts import TABLES, Table
from retail_platform.lakehouse import (
    Append,
    Commit,
    Lakehouse,
    Provenance,
    Query,
    ReplaceSlices,
    ReplaceTable,
    Write,
)
from retail_platform.orchestration.partitions import shard_names

SHARD = "shard"


class LakeIOManager(dg.IOManager):
    """Writes frames by the table's contract and reads whole tables, or the slice of the partition asked for."""

    def __init__(self, lakehouse: Lakehouse) -> None:
        self._lakehouse = lakehouse

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        if obj is None:
            return
        table = _table(context.asset_key)
        partitions = list(context.asset_partition_keys) if context.has_asset_partitions else []
        provenance = Provenance(
            asset=table.name,
            run_id=context.run_id,
            code_version=context.asset_spec.code_version or "",
            partition=_in_words(partitions),
            inputs={"lake": self._lakehouse.snapshot_id()},
        )
        others = shards_of_other_cuts(self._lakehouse, table) if SHARD in (table.replaced_by or ()) else []
        commit = self._lakehouse.commit([_write(table, obj, partitions, others)], provenance)
        rows = "dagster/partition_row_count" if partitions else "dagster/row_count"
        context.add_output_metadata({rows: commit.rows[table.name], **commit_metadata(commit)})

    def load_input(self, context: dg.InputContext) -> pl.DataFrame | pl.LazyFrame:
        table = _table(context.asset_key)
        where, parameters = "", []
        if context.has_asset_partitions and table.replaced_by:
            where = f'"{table.replaced_by[-1]}"::VARCHAR IN (SELECT unnest(?))'
            parameters = [list(context.asset_partition_keys)]
        frame = self._lakehouse.read(table.name, where=where, parameters=parameters)
        return frame.lazy() if context.dagster_type.typing_type is pl.LazyFrame else frame


def shards_of_other_cuts(lakehouse: Lakehouse, table: Table) -> list[str]:
    """Shards that a table holds and the settings do not know: rows of a time when the stores were cut otherwise."""
    held = lakehouse.query(f"SELECT DISTINCT shard FROM {table.name}")["shard"]
    return sorted(set(held) - set(shard_names(lakehouse.settings)))


def commit_metadata(commit: Commit) -> dict[str, Any]:
    """What a materialization says of its commit."""
    facts: dict[str, Any] = {"lake_snapshot": commit.snapshot_id, "commit_attempts": commit.attempts}
    if commit.schema_changes:
        facts["schema_changes"] = ", ".join(commit.schema_changes)
    return facts


def _write(table: Table, rows: Any, partitions: Sequence[str], other_shards: Sequence[str]) -> Write:
    if not isinstance(rows, pl.DataFrame | pl.LazyFrame | pa.RecordBatchReader | Query):
        raise dg.DagsterInvariantViolationError(
            f"asset {table.name} returned {type(rows).__name__}; return a Polars frame, a RecordBatchReader or a Query"
        )
    if isinstance(rows, pl.DataFrame):
        rows = table.validate(rows)
    if table.replaced_by is None:
        return Append(table, rows)
    if table.replaced_by == () or (table.replaced_by == (SHARD,) and not partitions):
        return ReplaceTable(table, rows)
    if not isinstance(rows, pl.DataFrame):
        rows = table.validate(rows.collect() if isinstance(rows, pl.LazyFrame) else _collected(table, rows))
    return ReplaceSlices(table, rows, _slices(table, rows, partitions, other_shards))


def _slices(
    table: Table, rows: pl.DataFrame, partitions: Sequence[str], other_shards: Sequence[str]
) -> Sequence[Mapping[str, Any]]:
    """The slices that this output replaces: those of its partitions, so that a day without rows becomes empty, and
    those of another cut into shards, whose stores would else stand twice.
    """
    columns = list(table.replaced_by or ())
    if SHARD in columns and not partitions:
        # Not cut into shards: rows of an earlier cut must go as well.
        columns.remove(SHARD)
    found = rows.select(columns).unique().rows(named=True)
    if SHARD in columns and len(columns) > 1:
        return [{**values, SHARD: shard} for values in found for shard in (values[SHARD], *other_shards)]
    if not partitions:
        return found
    if columns == [SHARD]:
        return [{SHARD: shard} for shard in (*partitions, *other_shards)]
    dtype = table.polars_schema[columns[0]]
    return [{columns[0]: value} for value in pl.Series(partitions, dtype=pl.String).cast(dtype)]


def _collected(table: Table, rows: Any) -> pl.DataFrame:
    if isinstance(rows, Query):
        raise dg.DagsterInvariantViolationError(f"{table.name} is replaced by slices: return a frame, not a Query")
    return pl.DataFrame(rows.read_all())


def _table(key: dg.AssetKey) -> Table:
    name = ".".join(key.path)
    if name not in TABLES:
        raise dg.DagsterInvariantViolationError(f"asset {name} has no contract; add one in retail_platform/contracts")
    return TABLES[name]


def _in_words(partitions: Sequence[str]) -> str:
    if len(partitions) <= 1:
        return "".join(partitions)
    return f"{min(partitions)}...{max(partitions)}"
