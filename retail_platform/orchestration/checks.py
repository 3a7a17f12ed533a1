"""Blocking checks that read the lake back: the contract of every table, and the account of every raw row."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.contracts import FEEDS, TABLES, Feed, Table
from retail_platform.lakehouse import Lakehouse
from retail_platform.monitoring.accounting import row_identity
from retail_platform.orchestration.assets.sources import written_alongside_specs
from retail_platform.orchestration.chunks import chunks_of_days, worked_ahead
from retail_platform.orchestration.partitions import days_of_run

_CHECKED_SCHEMAS = ("clean", "features", "model", "forecast", "monitoring")
_EXAMPLES = 5
_ROWS_AT_ONCE = 1_000_000


def table_checks() -> list[dg.AssetChecksDefinition]:
    # No run is asked for these alone; who writes them has them keep their contract.
    alongside = {".".join(spec.key.path) for spec in written_alongside_specs()}
    contracts = [
        _contract_check(table)
        for table in TABLES.values()
        if table.schema_name in _CHECKED_SCHEMAS and table.name not in alongside
    ]
    return [*contracts, *(_identity_check(feed) for feed in FEEDS.values())]


def _contract_check(table: Table) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=table.asset_key,
        name="contract",
        blocking=True,
        description="Every stored row keeps the table's contract: types, required values, ranges, rules and grain.",
    )
    def contract(context: dg.AssetCheckExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]) -> dg.AssetCheckResult:
        rows, broken = 0, Counter[str]()
        for checked, found in worked_ahead(
            lambda part: _check(lakehouse, table, part), _parts(lakehouse, table, context), 2
        ):
            rows += checked
            broken.update(found)
        return dg.AssetCheckResult(
            passed=not broken,
            metadata={"rows_checked": rows, "rules": len(table.row_rules()) + 1, "broken": dict(broken)},
        )

    return contract


def _identity_check(feed: Feed) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=feed.clean_table.split("."),
        name="every_row_accounted_for",
        blocking=True,
        description="Rows that arrived = clean + rejected + duplicate, for every landing file.",
    )
    def every_row_accounted_for(
        context: dg.AssetCheckExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]
    ) -> dg.AssetCheckResult:
        days = days_of_run(context) if feed.date_column else None
        tables = (feed.raw_table, feed.clean_table, "quarantine.rejected_rows", "quarantine.duplicate_rows")
        account = row_identity(*_rows_by_file(lakehouse, tables, feed, days))
        wrong = account.filter(pl.col("difference") != 0)
        totals = account.select(pl.exclude("file_id").sum()).row(0, named=True)
        return dg.AssetCheckResult(
            passed=wrong.is_empty(),
            metadata={"files": account.height, **totals, "files_that_do_not_add_up": wrong.head(_EXAMPLES).to_dicts()},
        )

    return every_row_accounted_for


def _rows_by_file(lakehouse: Lakehouse, tables: Sequence[str], feed: Feed, days: Any) -> list[pl.DataFrame]:
    """For each of the tables its rows of the feed by landing file, all of one state of the lake: file_id, rows."""
    questions, parameters = [], []
    for table in tables:
        clean = table == feed.clean_table
        file_column = "source_file_id" if clean else "file_id"
        conditions = [f"{file_column} IS NOT NULL"]
        if table.startswith("quarantine."):
            conditions.append("feed = ?")
            parameters.append(feed.name)
        if days:
            conditions.append(f"{feed.date_column if clean else 'partition_date'} BETWEEN ? AND ?")
            parameters.extend(days)
        questions.append(
            f"SELECT '{table}' AS table_name, {file_column} AS file_id, count(*) AS rows FROM {table} "
            f"WHERE {' AND '.join(conditions)} GROUP BY ALL"
        )
    found = lakehouse.query(" UNION ALL ".join(questions), parameters)
    return [found.filter(table_name=table).drop("table_name") for table in tables]


def _parts(
    lakehouse: Lakehouse, table: Table, context: dg.AssetCheckExecutionContext
) -> Iterator[tuple[str, list[Any]]]:
    """What a check reads at once: the days that the run wrote, in chunks; the whole table where it is not partitioned
    by day. No grain spans two days."""
    days = days_of_run(context) if table.replaced_by in {("business_date",), ("as_of_date",)} else None
    if days is None:
        yield "", []
        return
    (column,) = table.replaced_by or ()
    for chunk in chunks_of_days(lakehouse, table.name, column, days, _ROWS_AT_ONCE):
        yield f"{column} BETWEEN ? AND ?", [chunk[0], chunk[-1]]


def _check(lakehouse: Lakehouse, table: Table, part: tuple[str, list[Any]]) -> tuple[int, dict[str, int]]:
    where, parameters = part
    frame = lakehouse.read(table.name, where=where, parameters=parameters)
    return frame.height, _broken_rules(table, frame)


def _broken_rules(table: Table, frame: pl.DataFrame) -> dict[str, int]:
    """Broken promises and how many rows break each."""
    differences = table.schema_differences(frame.schema)
    if differences:
        return dict.fromkeys(differences, frame.height)
    counts = frame.select(
        (~rule.holds.fill_null(value=True)).sum().alias(f"{position}")
        for position, rule in enumerate(table.row_rules())
    )
    broken = {rule.message: int(count) for rule, count in zip(table.row_rules(), counts.row(0), strict=True) if count}
    repeated = _rows_of_shared_grain(table, frame)
    if repeated:
        broken[f"more than one row per {', '.join(table.grain)}"] = repeated
    return broken


def _rows_of_shared_grain(table: Table, frame: pl.DataFrame) -> int:
    # Equal rows have equal hashes, and to look for those costs a fourth of looking for the rows.
    if frame.is_empty() or frame.select(table.grain).hash_rows().n_unique() == frame.height:
        return 0
    return int(frame.select(pl.struct(table.grain).is_duplicated().sum()).item())
