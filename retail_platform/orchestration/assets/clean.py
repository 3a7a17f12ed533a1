"""Silver: each feed's rows that keep their contract; the others go to the quarantine in the same transaction.

Here: which raw rows a step reads and which slices it replaces. Not here: what makes a row good (`cleaning/`).
"""

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.cleaning import (
    NOTHING_WAIVED,
    CleanedFeed,
    References,
    clean_feed,
    kind_of,
    merge_calendar,
    public_holidays,
)
from retail_platform.contracts import FEEDS, TABLES, Feed
from retail_platform.governance.customer_key import customer_key
from retail_platform.lakehouse import Lakehouse, Provenance, ReplaceSlices, ReplaceTable, Write
from retail_platform.orchestration.chunks import chunks_of_days, worked_ahead
from retail_platform.orchestration.partitions import business_days, days_of_run
from retail_platform.orchestration.reject_budget import WITHHELD, refusal, waivers_of, withheld_days
from retail_platform.orchestration.specs import asset_facts
from retail_platform.orchestration.staleness import REFERRING
from retail_platform.settings import Settings

Progress = Callable[[str], None]

CHUNK_ROWS = 1_000_000
CHUNKS_AHEAD = 2
"""While a chunk is written, the next ones are read and cleaned."""


@dataclass
class Account:
    """What became of the raw rows of a run."""

    arrived: int = 0
    clean: int = 0
    rejected: int = 0
    duplicate: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    snapshot_id: int | None = None
    withheld: pl.DataFrame = field(default_factory=WITHHELD.empty)

    def add(self, arrived: int, cleaned: CleanedFeed, withheld: pl.DataFrame) -> None:
        self.arrived += arrived
        self.clean += cleaned.clean.height
        self.rejected += cleaned.rejected.height
        self.duplicate += cleaned.duplicates.height
        kinds = cleaned.rejected.explode("reasons").select(kind_of(pl.col("reasons")).value_counts()).unnest("reasons")
        self.reasons.update(dict(kinds.iter_rows()))
        for step in cleaned.steps:
            self.steps[step.name] += step.rows
        self.withheld = pl.concat([self.withheld, withheld])


def clean_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    with warnings.catch_warnings():
        # Backfill policies are beta in this Dagster; one run over many days depends on them, and a test pins that.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [_clean_asset(feed, settings) for feed in FEEDS.values()]


def _clean_asset(feed: Feed, settings: Settings) -> dg.AssetsDefinition:
    deps = [feed.raw_table.split(".")]
    if feed.name in REFERRING:
        deps += [["clean", "items"], ["clean", "stores"]]
    by_day = feed.date_column is not None

    @dg.asset(
        **asset_facts(feed.clean_table, code_version="1"),
        deps=deps,
        partitions_def=business_days(settings) if by_day else None,
        backfill_policy=dg.BackfillPolicy.single_run() if by_day else None,
    )
    def clean(context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]) -> dg.MaterializeResult[None]:
        days = days_of_run(context) if by_day else None
        if by_day and days is None:
            raise dg.Failure(
                f"{feed.clean_table} is cut into business days and the run names none that it knows; name days from "
                f"{lakehouse.settings.start_date} to today",
                allow_retries=False,
            )
        run_id = context.run.run_id
        account = (
            clean_days(lakehouse, feed, days, run_id, context.log.info) if days else _clean_all(lakehouse, feed, run_id)
        )
        _report_quarantine(context, lakehouse)
        if not account.withheld.is_empty():
            raise dg.Failure(refusal(account.withheld), metadata=_metadata(feed, account, days), allow_retries=False)
        return dg.MaterializeResult(metadata=_metadata(feed, account, days))

    return clean


def _clean_all(lakehouse: Lakehouse, feed: Feed, run_id: str) -> Account:
    """A feed without daily partitions: all of its raw rows, the whole clean table."""
    judged_by = lakehouse.snapshot_id()
    raw = lakehouse.read(feed.raw_table, columns=raw_columns(feed))
    cleaned = judge_rows(lakehouse, feed, raw, references_of(lakehouse, feed))
    frame = cleaned.clean
    if feed.name == "calendar_events":
        frame = merge_calendar(frame, _holidays(lakehouse.settings))
    table = TABLES[feed.clean_table]
    whole = [{"feed": feed.name}]
    withheld = withheld_days(lakehouse, feed, raw, cleaned.rejected, lake_snapshot=judged_by, run_id=run_id)
    writes: list[Write] = [ReplaceSlices(WITHHELD, withheld, whole)]
    if withheld.is_empty():
        writes += [ReplaceTable(table, table.validate(frame)), *_set_aside(cleaned, whole)]
    account = Account()
    account.add(raw.height, cleaned, withheld)
    account.snapshot_id = _commit(lakehouse, run_id, feed, writes, "")
    return account


def clean_days(
    lakehouse: Lakehouse, feed: Feed, days: tuple[date, date], run_id: str, progress: Progress = lambda _: None
) -> Account:
    """The raw rows of the business days from the first to the last, in chunks of bounded size, each chunk one
    transaction."""
    judged_by = lakehouse.snapshot_id()
    table, account, references = TABLES[feed.clean_table], Account(), references_of(lakehouse, feed)
    # The first to ask for the key makes it; threads must not ask at once.
    _key(lakehouse, feed)
    (date_column,) = table.replaced_by or ()

    def clean(chunk: list[date]) -> tuple[list[date], int, CleanedFeed, pl.DataFrame]:
        raw = lakehouse.read(
            feed.raw_table,
            columns=raw_columns(feed),
            where="partition_date BETWEEN ? AND ?",
            parameters=[chunk[0], chunk[-1]],
        )
        cleaned = judge_rows(lakehouse, feed, raw, references)
        withheld = withheld_days(lakehouse, feed, raw, cleaned.rejected, lake_snapshot=judged_by, run_id=run_id)
        return chunk, raw.height, cleaned, withheld

    chunks = chunks_of_days(lakehouse, feed.raw_table, "partition_date", days, CHUNK_ROWS)
    for chunk, arrived, cleaned, withheld in worked_ahead(clean, chunks, CHUNKS_AHEAD):
        written = [day for day in chunk if day not in set(withheld["partition_date"])]
        kept = _without_days(cleaned, date_column, withheld["partition_date"])
        writes: list[Write] = [ReplaceSlices(WITHHELD, withheld, _quarantine_slices(feed, chunk))]
        if written:
            clean_slices = [{date_column: day} for day in written]
            # Every row has just been judged by the contract's own rules; the contract check judges what is stored.
            writes.append(ReplaceSlices(table, table.arrange(kept.clean), clean_slices))
            writes += _set_aside(kept, _quarantine_slices(feed, written))
        partition = f"{chunk[0]}...{chunk[-1]}"
        account.add(arrived, cleaned, withheld)
        account.snapshot_id = _commit(lakehouse, run_id, feed, writes, partition)
        progress(f"{feed.clean_table} {partition}: {arrived} rows in, {kept.clean.height} clean")
    return account


def raw_columns(feed: Feed) -> list[str]:
    """Those of the contract: the raw table may have more, which were admitted by setting."""
    return TABLES[feed.raw_table].polars_schema.names()


def _key(lakehouse: Lakehouse, feed: Feed) -> bytes | None:
    return customer_key(lakehouse.settings) if feed.name == "pos_sales" else None


def judge_rows(lakehouse: Lakehouse, feed: Feed, raw: pl.DataFrame, references: References) -> CleanedFeed:
    """What becomes of raw rows of a feed, by the settings and at the time of now. Nothing is written."""
    key = _key(lakehouse, feed)
    now = datetime.now(UTC).replace(tzinfo=None)
    form = lakehouse.settings.feed(feed.name)
    return clean_feed(
        feed.name,
        raw,
        references=references,
        now=now,
        today=now.date(),
        customer_key=key,
        form=form,
        waived=waivers_of(lakehouse, feed) if form.replaces == "store_day" else NOTHING_WAIVED,
    )


def references_of(lakehouse: Lakehouse, feed: Feed) -> References:
    """Known items and stores; a master that never arrived is not held against the rows that refer to it."""
    if feed.name not in REFERRING:
        return References()
    items = lakehouse.read("clean.items", columns=["item_id", "category", "department"])
    stores = lakehouse.read("clean.stores", columns=["store_id", "time_zone"])
    return References.of(items, stores)


def _holidays(settings: Settings) -> pl.DataFrame:
    first, last = settings.start_date.year, datetime.now(UTC).year + 2
    return public_holidays(settings.country, first, last)


def _set_aside(cleaned: CleanedFeed, slices: list[dict[str, Any]]) -> list[Write]:
    rejected, duplicates = TABLES["quarantine.rejected_rows"], TABLES["quarantine.duplicate_rows"]
    return [
        ReplaceSlices(rejected, rejected.validate(cleaned.rejected), slices),
        ReplaceSlices(duplicates, duplicates.validate(cleaned.duplicates), slices),
    ]


def _without_days(cleaned: CleanedFeed, date_column: str, days: pl.Series) -> CleanedFeed:
    if days.is_empty():
        return cleaned
    return replace(
        cleaned,
        clean=cleaned.clean.filter(~pl.col(date_column).is_in(days.implode())),
        rejected=cleaned.rejected.filter(~pl.col("partition_date").is_in(days.implode())),
        duplicates=cleaned.duplicates.filter(~pl.col("partition_date").is_in(days.implode())),
    )


def _quarantine_slices(feed: Feed, days: list[date]) -> list[dict[str, Any]]:
    return [{"feed": feed.name, "partition_date": day} for day in days]


def _commit(lakehouse: Lakehouse, run_id: str, feed: Feed, writes: list[Write], partition: str) -> int:
    # Where nothing of the clean table was written, its provenance must not say that it is up to date.
    written = feed.clean_table if any(write.table.name == feed.clean_table for write in writes) else WITHHELD.name
    provenance = Provenance(asset=written, run_id=run_id, code_version="1", partition=partition)
    return lakehouse.commit(writes, provenance).snapshot_id


def _report_quarantine(context: dg.AssetExecutionContext, lakehouse: Lakehouse) -> None:
    """Show on the asset pages of the quarantine how many rows it holds now, and why."""
    for name in ("quarantine.rejected_rows", "quarantine.duplicate_rows"):
        why = "reasons" if name == "quarantine.rejected_rows" else "[kind]"
        counts = lakehouse.query(
            f"SELECT feed, {why} AS reasons, count(*) AS rows FROM {name} GROUP BY ALL ORDER BY ALL"
        )
        by_feed = counts.group_by("feed", maintain_order=True).agg(pl.col("rows").sum())
        by_reason = (
            counts.explode("reasons")
            .group_by("feed", kind_of(pl.col("reasons")).alias("reason"))
            .agg(pl.col("rows").sum())
            .sort("rows", "feed", "reason", descending=[True, False, False])
        )
        context.log_event(
            dg.AssetMaterialization(
                name.split("."),
                metadata={
                    "dagster/row_count": int(counts["rows"].sum()),
                    "rows_by_feed": dict(by_feed.iter_rows()),
                    "rows_by_feed_and_reason": _grid(by_reason.head(50)),
                },
            )
        )


def _grid(frame: pl.DataFrame) -> dg.MetadataValue:
    records = [dg.TableRecord(row) for row in frame.iter_rows(named=True)]
    columns = [dg.TableColumn(name, "int" if name == "rows" else "string") for name in frame.columns]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def _metadata(feed: Feed, account: Account, days: tuple[date, date] | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "dagster/partition_row_count" if days else "dagster/row_count": account.clean,
        "arrived": account.arrived,
        "rejected": account.rejected,
        "duplicates": account.duplicate,
        "conforming_steps": dict(account.steps),
    }
    if not account.withheld.is_empty():
        facts["withheld"] = account.withheld.select(pl.col("partition_date").cast(pl.String)).to_series().to_list()
    if account.snapshot_id is not None:
        facts["lake_snapshot"] = account.snapshot_id
    if account.reasons:
        facts["reasons"] = dict(account.reasons.most_common(20))
    if not account.arrived and not days:
        facts["missing"] = f"no rows of {feed.name} have arrived; what depends on it runs without it"
    return facts
