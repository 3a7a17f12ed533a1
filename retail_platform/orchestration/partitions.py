"""How the work is cut: business days for cleaning, groups of stores for science."""

from collections.abc import Sequence
from datetime import date

import dagster as dg

from retail_platform.features.shards import WHOLE
from retail_platform.features.shards import shard_names as names_of_shards
from retail_platform.settings import Settings

WHOLE_PANEL = WHOLE


def business_days(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Every day from the first accepted one to today; today counts, since tills are open."""
    return dg.DailyPartitionsDefinition(start_date=settings.start_date.isoformat(), end_offset=1)


def shards(settings: Settings) -> dg.StaticPartitionsDefinition | None:
    """Groups of stores, where the settings ask for more than one."""
    names = shard_names(settings)
    return None if names == [WHOLE_PANEL] else dg.StaticPartitionsDefinition(names)


def on_every_day(table: str) -> dg.AssetDep:
    """Dependency on a table of business days as a whole; a shard has no day of the same name to depend on."""
    return dg.AssetDep(table.split("."), partition_mapping=dg.AllPartitionMapping())


def shard_names(settings: Settings) -> list[str]:
    return names_of_shards(settings.forecast.shards)


def days_of_run(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> tuple[date, date] | None:
    """First and last business day of a run over daily partitions; `None` in a run without partitions."""
    keys = _partition_keys(context)
    return (date.fromisoformat(min(keys)), date.fromisoformat(max(keys))) if keys else None


def shard_of_run(context: dg.AssetExecutionContext) -> str:
    """The group of stores that this step works on."""
    return context.partition_key if context.has_partition_key else WHOLE_PANEL


def _partition_keys(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> Sequence[str]:
    if isinstance(context, dg.AssetExecutionContext):
        return context.partition_keys if context.has_partition_key or context.has_partition_key_range else ()
    tags = context.run.tags
    first = tags.get("dagster/asset_partition_range_start") or tags.get("dagster/partition")
    last = tags.get("dagster/asset_partition_range_end") or tags.get("dagster/partition")
    return [first, last] if first and last else ()
