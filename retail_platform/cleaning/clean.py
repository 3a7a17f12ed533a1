"""The raw rows of one feed become clean rows, rejected rows and duplicates; none is lost and none counted twice.

Here: the sequence of the steps and the shape of the result. Not here: the steps (the modules beside this one), and
which raw rows are to be cleaned (`orchestration/`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import polars as pl

from retail_platform.cleaning.budget import NOTHING_WAIVED
from retail_platform.cleaning.conform import ConformingStep, conform, in_arrival_order
from retail_platform.cleaning.duplicates import judge_duplicates
from retail_platform.cleaning.feeds import complete
from retail_platform.cleaning.reasons import (
    Promise,
    keeps_contract,
    lies_in_its_partition,
    readable,
    refers_to,
    split_by_promises,
)
from retail_platform.cleaning.store_days import judge_replaced, newest_store_days
from retail_platform.cleaning.text import ISO
from retail_platform.contracts import FEEDS, TABLES, ContractBroken, Feed
from retail_platform.contracts.time_zones import is_time_zone
from retail_platform.settings import FeedSettings

_PROVENANCE = ("source_file_id", "source_row_number")


@dataclass(frozen=True)
class References:
    """Keys that rows may refer to. `None` means that the master data is not known and nothing is checked.

    `hierarchy_nodes` are the categories and departments, under which stock may be reported as well. `store_time_zones`
    are IANA names by store, needed only where a feed declares the zone of its times.
    """

    store_ids: frozenset[str] | pl.Series | None = None
    item_ids: frozenset[str] | pl.Series | None = None
    hierarchy_nodes: frozenset[str] | pl.Series | None = None
    store_time_zones: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, items: pl.DataFrame, stores: pl.DataFrame) -> "References":
        """The keys of `clean.items` and `clean.stores`; an empty table counts as not known."""
        return cls(
            store_ids=None if stores.is_empty() else stores["store_id"],
            item_ids=None if items.is_empty() else items["item_id"],
            hierarchy_nodes=pl.concat([items["category"], items["department"]]).drop_nulls().unique(),
            store_time_zones=time_zones_of(stores),
        )


def time_zones_of(stores: pl.DataFrame) -> dict[str, str]:
    """The time zone of each row of `clean.stores` that has one; a name that is no time zone counts as none."""
    known = {zone for zone in stores["time_zone"].drop_nulls().unique() if is_time_zone(zone)}
    return {store: zone for store, zone in stores.select("store_id", "time_zone").iter_rows() if zone in known}


@dataclass(frozen=True)
class CleanedFeed:
    """`clean` keeps the feed's clean contract, `rejected` and `duplicates` those of the quarantine tables, and their
    rows together are the raw rows, file by file. Each frame is sorted by its table's grain.
    """

    clean: pl.DataFrame
    rejected: pl.DataFrame
    duplicates: pl.DataFrame
    steps: list[ConformingStep]


def clean_feed(
    feed: str,
    raw: pl.DataFrame,
    *,
    references: References,
    now: datetime,
    today: date,
    customer_key: bytes | None,
    form: FeedSettings = ISO,
    waived: pl.DataFrame = NOTHING_WAIVED,
) -> CleanedFeed:
    """Clean raw rows of `feed` (columns of its raw table, any order of rows).

    For a feed whose clean table is partitioned by day, `raw` must hold whole partitions; for the others the whole
    raw table, as a row of any file may stand for or against a row of any other. `now` (UTC) is noted as the time of
    rejection. `form` says how the feed's files write numbers, dates and times, and whether they are complete per store
    and day; if so, `waived` (file_id, row_number) names the rows that do not count against a file.

    Raises `ContractBroken` where `raw` has not the raw table's columns, `CustomerKeyMissing` where there are customer
    ids and no key, `ValueError` for an unknown feed.
    """
    if feed not in FEEDS:
        raise ValueError(f"unknown feed {feed}; known are {', '.join(FEEDS)}")
    declared = FEEDS[feed]
    differences = TABLES[declared.raw_table].schema_differences(raw.schema)
    if differences:
        raise ContractBroken(f"{declared.raw_table}: {'; '.join(differences)}")
    contract = TABLES[declared.clean_table]
    columns = contract.polars_schema.names()

    raw = in_arrival_order(raw)
    frame, steps = conform(declared, raw, form, references.store_time_zones)
    frame, further_steps = complete(declared, frame, customer_key)
    good, broken = split_by_promises(
        frame, _promises(declared, form, references, today), [*columns, "raw_row", "partition_date"]
    )
    values = [c for c in columns if c not in {*contract.grain, *_PROVENANCE}]
    if form.replaces == "store_day" and declared.date_column:
        broken = broken.select(*good.columns, "reasons")
        days = newest_store_days(good, broken, declared.date_column, waived=waived, budget=form.reject_budget)
        judged = judge_duplicates(days.counting, contract.grain, values)
        broken = days.rejected
        left_out = [judged.duplicates, judge_replaced(days.replaced, judged.kept, contract.grain, values)]
    else:
        judged = judge_duplicates(good, contract.grain, values)
        left_out = [judged.duplicates]

    return CleanedFeed(
        clean=judged.kept.select(columns),
        rejected=_rejected_rows(declared, raw, [broken, judged.contradicting], now),
        duplicates=_duplicate_rows(declared, left_out),
        steps=[*steps, *further_steps],
    )


def _promises(feed: Feed, form: FeedSettings, references: References, today: date) -> list[Promise]:
    promises = [*readable(feed, form), *keeps_contract(feed, TABLES[feed.clean_table])]
    if feed.date_column:
        promises += lies_in_its_partition(feed.date_column, today)
    if feed.name not in ("stores", "items"):
        promises += _references(feed, references)
    return promises


def _references(feed: Feed, references: References) -> Iterable[Promise]:
    if "store_id" in feed.column_names and references.store_ids is not None:
        yield refers_to("store_id", references.store_ids, "clean.stores")
    if "item_id" in feed.column_names and references.item_ids is not None:
        nodes = references.hierarchy_nodes if feed.name == "inventory" else None
        known = [*references.item_ids, *(() if nodes is None else nodes)]
        yield refers_to("item_id", known, "clean.items")


def _rejected_rows(feed: Feed, raw: pl.DataFrame, parts: list[pl.DataFrame], now: datetime) -> pl.DataFrame:
    table = TABLES["quarantine.rejected_rows"]
    set_aside = pl.concat([part.select("raw_row", "reasons") for part in parts])
    return (
        raw[set_aside["raw_row"]]
        .select(
            pl.lit(feed.name).alias("feed"),
            "file_id",
            "row_number",
            "partition_date",
            set_aside["reasons"],
            pl.struct(feed.column_names).struct.json_encode().alias("row_json"),
            pl.lit(now, pl.Datetime("us")).alias("rejected_at"),
        )
        .select(table.polars_schema.names())
        .sort(table.grain)
    )


def _duplicate_rows(feed: Feed, parts: list[pl.DataFrame]) -> pl.DataFrame:
    table = TABLES["quarantine.duplicate_rows"]
    columns = ["source_file_id", "source_row_number", "partition_date", "kept_file_id", "kept_row_number", "kind"]
    return (
        pl.concat(part.select(columns) for part in parts)
        .select(
            pl.lit(feed.name).alias("feed"),
            pl.col("source_file_id").alias("file_id"),
            pl.col("source_row_number").alias("row_number"),
            "partition_date",
            "kept_file_id",
            "kept_row_number",
            "kind",
        )
        .select(table.polars_schema.names())
        .sort(table.grain)
    )
