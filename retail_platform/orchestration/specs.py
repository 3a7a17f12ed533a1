"""What every asset says of itself, derived from its table's contract.

Here: owner, description, kinds, tags, columns, lineage. Not here: a second list of any of these.
"""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from retail_platform.contracts import TABLES, Column, Table
from retail_platform.governance.lineage import column_lineage


def asset_facts(name: str, *, code_version: str, kinds: Iterable[str] = ("polars", "duckdb")) -> dict[str, Any]:
    """Keyword arguments of `@asset` for the table `name`, such as `clean.sales`."""
    table = TABLES[name]
    return {
        "key": table.asset_key,
        "group_name": table.schema_name,
        "description": describe(table),
        "owners": [table.owner],
        "kinds": set(kinds),
        "tags": {"classification": table.classification, "tier": table.tier},
        "metadata": definition_metadata(table),
        "code_version": code_version,
        "pool": f"lake_{table.schema_name}_{table.table_name}",
    }


def spec(name: str, *, deps: Iterable[Any] = (), code_version: str, kinds: Iterable[str] = ("duckdb",)) -> dg.AssetSpec:
    """The same facts as an `AssetSpec`, for tables that a step writes beside its own."""
    facts = asset_facts(name, code_version=code_version, kinds=kinds)
    facts.pop("pool")
    return dg.AssetSpec(deps=list(deps), **facts)


def describe(table: Table) -> str:
    retention = "kept without limit" if table.retention_days is None else f"kept for {table.retention_days} days"
    return f"{table.description}\n\nOne row per {', '.join(table.grain)}; {retention}."


def definition_metadata(table: Table) -> dict[str, Any]:
    return {
        "dagster/table_name": f"lake.{table.name}",
        "dagster/storage_kind": "ducklake",
        "dagster/column_schema": dg.TableSchema(
            columns=[_table_column(table, column) for column in table.columns],
        ),
        "dagster/column_lineage": dg.TableColumnLineage(
            {
                column: [
                    dg.TableColumnDep(asset_key=dg.AssetKey(upstream.split(".")), column_name=upstream_column)
                    for upstream, upstream_column in sources
                ]
                for column, sources in column_lineage(table.name).items()
            }
        ),
        "grain": ", ".join(table.grain),
    }


def _table_column(table: Table, column: Column) -> dg.TableColumn:
    unit = f" [{column.unit}]" if column.unit else ""
    return dg.TableColumn(
        name=column.name,
        type=str(column.dtype),
        description=f"{column.description}{unit}",
        constraints=dg.TableColumnConstraints(
            nullable=column.nullable, unique=table.grain == (column.name,), other=list(column.constraints)
        ),
        tags={"classification": column.classification},
    )
