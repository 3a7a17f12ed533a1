"""What is out of date, read from the lake itself: its rows and the provenance of its commits.

Here: business days whose rows are not accounted for, and tables older than what they read from. Not here: asking
for the work (sensors, the command line). The lake is asked, not Dagster's event log, so that a run that was lost,
or made elsewhere, cannot hide; the event log only adds the runs that had nothing to write.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.contracts import FEEDS, TABLES, Feed
from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.file_counts import counts_of
from retail_platform.orchestration.corrections import days_of_another_rule
from retail_platform.orchestration.partitions import WHOLE_PANEL, shard_names
from retail_platform.orchestration.reject_budget import standing

CALENDAR = "clean.calendar"
MASTERS = ("clean.items", "clean.stores")
REFERRING = ("pos_sales", "inventory", "prices", "promotions")
"""Feeds whose rows name an item or a store of the masters."""


@dataclass(frozen=True)
class LastCommit:
    """The newest commit of a table: its snapshot and the code version that made it."""

    snapshot_id: int
    code_version: str


def pending_days(lakehouse: Lakehouse, feed: Feed, commits: Mapping[str, LastCommit]) -> list[date]:
    """Business days of a feed whose raw rows are not all clean, rejected or duplicate, oldest first.

    A late or corrected file adds raw rows to its days; they stay pending until they have been cleaned again. So do
    days with rows that referred to an unknown item or store, once the masters are newer than the cleaning, and days
    that were cleaned by another rule of corrections than the feed has now.
    """
    account = rows_by_day(lakehouse, feed)
    days = account.group_by("day").agg(pl.col("rows").sum()).filter(pl.col("rows") != 0)["day"]
    # The quarantine of most feeds is empty, which the counts tell in a fraction of the time of a look into it.
    set_aside = account["table"].str.starts_with("quarantine.").any()
    rejected: Collection[date] = ()
    if set_aside and _older(commits, feed.clean_table, MASTERS):
        rejected = lakehouse.query(
            "SELECT DISTINCT partition_date FROM quarantine.rejected_rows WHERE feed = ? "
            "AND len(list_filter(reasons, reason -> contains(reason, ' is not in clean.'))) > 0",
            [feed.name],
        ).to_series()
    return sorted({*days, *rejected, *days_of_another_rule(lakehouse, feed, set_aside=set_aside)})


def rows_by_day(lakehouse: Lakehouse, feed: Feed) -> pl.DataFrame:
    """The account of a feed's business days: table, day and rows, those of the raw table and, less than 0, those of the
    tables in which a raw row may end. A day that is accounted for has a sum of 0.
    """
    counted = [
        (feed.raw_table, ["partition_date"]),
        (feed.clean_table, [str(feed.date_column)]),
        ("quarantine.rejected_rows", ["feed", "partition_date"]),
        ("quarantine.duplicate_rows", ["feed", "partition_date"]),
    ]
    accounts = []
    for (table, (*_, day)), counts in zip(counted, counts_of(lakehouse, counted), strict=True):
        own = counts.filter(feed=feed.name) if "feed" in counts.columns else counts
        rows = pl.col("rows") if table == feed.raw_table else -pl.col("rows")
        accounts.append(own.select(pl.lit(table).alias("table"), pl.col(day).alias("day"), rows))
    return pl.concat(accounts)


def last_commits(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> dict[str, LastCommit]:
    """Newest commit of every table that was ever written, by the asset that its provenance names; where the stores
    are cut into shards, also of every shard of a table, under `table [shard]`.

    Writing no rows to an empty table leaves no commit: of such a run only its materialization tells, with the
    snapshot that it found. A model that too short a history does not allow would else be tried again and again.
    """
    current, shards = lakehouse.snapshot_id(), set(shard_names(lakehouse.settings)) - {WHOLE_PANEL}
    commits = lakehouse.commits().filter(pl.col("provenance").is_not_null())
    found: dict[str, LastCommit] = {}
    for snapshot_id, text in commits.select("snapshot_id", "provenance").iter_rows():
        provenance = json.loads(text)
        commit = LastCommit(snapshot_id, provenance["code_version"])
        found.setdefault(provenance["asset"], commit)
        if provenance["partition"] in shards:
            found.setdefault(_of_shard(provenance["asset"], provenance["partition"]), commit)
    for name, seen in _runs_without_rows(instance, shards).items():
        # A greater snapshot is one of an earlier lake in the same home.
        if seen.snapshot_id <= current and (name not in found or seen.snapshot_id > found[name].snapshot_id):
            found[name] = seen
    return found


def standing_withheld(lakehouse: Lakehouse, commits: Mapping[str, LastCommit]) -> dict[str, list[date | None]]:
    """Days by feed that would be withheld again as long as nothing changes; asking for them would ask for ever."""
    days: dict[str, list[date | None]] = {}
    for feed, day in standing(lakehouse, masters_changed_at(commits)).select("feed", "partition_date").iter_rows():
        days.setdefault(feed, []).append(day)
    return days


def masters_changed_at(commits: Mapping[str, LastCommit]) -> int:
    """The snapshot by which items or stores were last written."""
    return max((commits[name].snapshot_id for name in MASTERS if name in commits), default=0)


def stale_masters(commits: Mapping[str, LastCommit], withheld: Collection[str] = ()) -> list[Feed]:
    """Feeds without daily partitions whose clean table is older than their raw one, or was never written; but none
    that is `withheld`.

    A feed that never arrived counts only until the first cleaning; the calendar shows whether there was one, for it
    always has rows: the public holidays. Items and stores come before what refers to them.
    """
    feeds = [feed for feed in FEEDS.values() if feed.date_column is None]
    if CALENDAR in commits:
        feeds = [feed for feed in feeds if feed.raw_table in commits]
    # A withheld master must not hold the days back: they are judged by its last good rows.
    feeds = [feed for feed in feeds if feed.name not in withheld]
    stale = [feed for feed in feeds if _older(commits, feed.clean_table, _sources(feed))]
    return [feed for feed in stale if feed.clean_table in MASTERS] or stale


def _sources(feed: Feed) -> list[str]:
    return [feed.raw_table, *(MASTERS if feed.name in REFERRING else ())]


def stale_keys(
    graph: dg.AssetSelection, repository: dg.RepositoryDefinition, commits: Mapping[str, LastCommit]
) -> list[dg.AssetKey]:
    """Assets of a selection that were never written, were written by other code or settings, or are older than
    something that they read from; a stale asset makes everything downstream of it in the selection stale.

    Where the stores are cut into shards, each shard is compared with the same shard of what it reads from.
    """
    assets = repository.asset_graph
    stale: list[dg.AssetKey] = []
    for key in assets.toposorted_asset_keys:
        if key not in graph.resolve(assets) or not assets.get(key).is_materializable:
            continue
        node = assets.get(key)
        if any(parent in stale for parent in node.parent_keys) or any(
            _stale(assets, node, shard, commits) for shard in _shards_of(node) or [""]
        ):
            stale.append(key)
    return stale


def _stale(assets: Any, node: Any, shard: str, commits: Mapping[str, LastCommit]) -> bool:
    name = _of_shard(_table(node.key), shard)
    parents = [
        _of_shard(_table(parent), shard if _shards_of(assets.get(parent)) else "") for parent in node.parent_keys
    ]
    changed = name in commits and commits[name].code_version != (node.code_version or "")
    return changed or _older(commits, name, parents)


def _shards_of(node: Any) -> list[str]:
    partitions = node.partitions_def
    return list(partitions.get_partition_keys()) if isinstance(partitions, dg.StaticPartitionsDefinition) else []


def _table(key: dg.AssetKey) -> str:
    return ".".join(key.path)


def _of_shard(table: str, shard: str) -> str:
    return f"{table} [{shard}]" if shard else table


def _runs_without_rows(instance: dg.DagsterInstance, shards: Collection[str]) -> dict[str, LastCommit]:
    """The last run of each table, and of each of its shards, where it made no row."""
    newest = instance.get_latest_materialization_events([dg.AssetKey(table.asset_key) for table in TABLES.values()])
    made = {".".join(key.path): event.asset_materialization if event else None for key, event in newest.items()}
    for table in TABLES.values():
        for shard in shards:
            filters = dg.AssetRecordsFilter(dg.AssetKey(table.asset_key), asset_partitions=[shard])
            for record in instance.fetch_materializations(filters, limit=1).records:
                made[_of_shard(table.name, shard)] = record.asset_materialization
    commits = {name: _commit_without_rows(materialization) for name, materialization in made.items()}
    return {name: commit for name, commit in commits.items() if commit is not None}


def _commit_without_rows(made: dg.AssetMaterialization | None) -> LastCommit | None:
    if made is None:
        return None
    facts = {name: value.value for name, value in made.metadata.items()}
    rows = facts.get("dagster/row_count", facts.get("dagster/partition_row_count"))
    snapshot = facts.get("lake_snapshot")
    if rows != 0 or not isinstance(snapshot, int):
        return None
    return LastCommit(snapshot, (made.tags or {}).get("dagster/code_version", ""))


def _older(commits: Mapping[str, LastCommit], table: str, sources: Sequence[str]) -> bool:
    if table not in commits:
        return True
    newest = max((commits[source].snapshot_id for source in sources if source in commits), default=-1)
    return newest > commits[table].snapshot_id
