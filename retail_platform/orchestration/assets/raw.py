"""Bronze: each feed's new landing files and what its sources have that is new, as received. One body for all feeds."""

import dagster as dg

from retail_platform.contracts import FEEDS, Feed
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.assets.sources import source_key
from retail_platform.orchestration.extraction import SourceReport, bring_in
from retail_platform.orchestration.ingestion import Ingestion
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
        result, sources = bring_in(lakehouse, feed.name, context.run.run_id, context.log.info)
        metadata = {**_metadata(lakehouse, feed, result), **_source_metadata(sources)}
        failures = [report.in_words() for report in sources if report.problem and not report.stale]
        if result.broken:
            refused = f"{len(result.broken)} files of {feed.name} were refused, the others were taken in: "
            failures.insert(0, refused + "; ".join(result.broken))
        if failures:
            raise dg.Failure(description="; ".join(failures), metadata=metadata, allow_retries=False)
        for report in sources:
            if report.stale:
                context.log.warning("the data of a source is stale: %s", report.in_words())
        context.log_event(
            dg.AssetMaterialization(
                ["raw", "ingested_files"],
                metadata={"dagster/row_count": _rows(lakehouse, "raw.ingested_files"), "feed": feed.name},
            )
        )
        return dg.MaterializeResult(metadata=metadata)

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


def _source_metadata(reports: list[SourceReport]) -> dict[str, dg.MetadataValue]:
    facts = {"sources": [r.in_words() for r in reports], "stale_sources": [r.source for r in reports if r.stale]}
    return {name: dg.MetadataValue.json(values) for name, values in facts.items() if values}


def _plain(value: object) -> dg.MetadataValue:
    return dg.MetadataValue.int(value) if isinstance(value, int) else dg.MetadataValue.text(str(value))


def _rows(lakehouse: Lakehouse, table: str) -> int:
    return int(lakehouse.query(f"SELECT count(*) FROM {table}").item())
