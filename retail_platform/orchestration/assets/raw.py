"""Bronze: each feed's new landing files, as received. One asset per feed, one body for all."""

import dagster as dg

from retail_platform.contracts import FEEDS, Feed
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.assets.sources import source_key
from retail_platform.orchestration.ingestion import Ingestion, ingest_feed
from retail_platform.orchestration.specs import asset_facts
from retail_platform.settings import Settings


def raw_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    return [_raw_asset(feed, settings) for feed in FEEDS.values()]


def _raw_asset(feed: Feed, settings: Settings) -> dg.AssetsDefinition:
    deps = [source_key(feed.name)]
    if settings.feed(feed.name).business_date_from:
        # Whose day it was depends on the store's time zone.
        deps.append(dg.AssetKey(["raw", "stores"]))

    @dg.asset(**asset_facts(feed.raw_table, code_version="1", kinds=("file", "duckdb")), deps=deps)
    def raw(context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]) -> dg.MaterializeResult[None]:
        lakehouse.prepare()
        result = ingest_feed(lakehouse, feed.name, context.run.run_id, context.log.info)
        if result.broken:
            raise dg.Failure(
                description=f"{len(result.broken)} files of {feed.name} were refused, the others were taken in: "
                + "; ".join(result.broken),
                metadata=_metadata(lakehouse, feed, result),
                allow_retries=False,
            )
        context.log_event(
            dg.AssetMaterialization(
                ["raw", "ingested_files"],
                metadata={"dagster/row_count": _rows(lakehouse, "raw.ingested_files"), "feed": feed.name},
            )
        )
        return dg.MaterializeResult(metadata=_metadata(lakehouse, feed, result))

    return raw


def _metadata(lakehouse: Lakehouse, feed: Feed, result: Ingestion) -> dict[str, dg.MetadataValue]:
    landing = lakehouse.settings.landing / feed.name
    facts: dict[str, object] = {
        "dagster/row_count": _rows(lakehouse, feed.raw_table),
        "dagster/uri": landing.as_uri(),
        "new_files": result.ingested,
        "new_rows": result.rows,
        "known_files": len(result.known),
    }
    if not (result.ingested or result.known or result.empty):
        facts["missing"] = f"no file in {landing}: everything downstream runs without {feed.name}"
    for name in ("empty", "ignored", "broken", "notes"):
        if getattr(result, name):
            facts[f"{name}_files" if name != "notes" else name] = getattr(result, name)
    if result.snapshot_id is not None:
        facts["lake_snapshot"] = result.snapshot_id
    return {name: dg.MetadataValue.json(v) if isinstance(v, list) else _plain(v) for name, v in facts.items()}


def _plain(value: object) -> dg.MetadataValue:
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.text(str(value))


def _rows(lakehouse: Lakehouse, table: str) -> int:
    return int(lakehouse.query(f"SELECT count(*) FROM {table}").item())
