"""Bronze: each feed's new landing files and what its sources have that is new, as received. One body for all feeds."""

from collections.abc import Sequence

import dagster as dg

from retail_platform.contracts import FEEDS, Feed
from retail_platform.contracts.feeds import contract_version, raw_table
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.assets.sources import source_key
from retail_platform.orchestration.extraction import SourceReport, bring_in
from retail_platform.orchestration.ingestion import Ingestion
from retail_platform.orchestration.specs import asset_facts, definition_metadata
from retail_platform.settings import Settings

_WRITTEN_ALONGSIDE = ("raw.ingested_files", "raw.files_left_out")


def raw_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    return [_raw_asset(feed, settings) for feed in FEEDS.values()]


def _raw_asset(feed: Feed, settings: Settings) -> dg.AssetsDefinition:
    deps = [source_key(feed.name)]
    if settings.feed(feed.name).business_date_from:
        # Whose day it was depends on the store's time zone.
        deps.append(dg.AssetKey(["raw", "stores"]))

    extra = settings.feed(feed.name).extra_columns
    version = contract_version(feed, extra)
    facts = asset_facts(feed.raw_table, code_version=version, kinds=("file", "duckdb"))
    facts["metadata"] = {**definition_metadata(raw_table(feed, extra)), "contract_version": version}

    @dg.asset(**facts, deps=deps)
    def raw(context: dg.AssetExecutionContext, lakehouse: dg.ResourceParam[Lakehouse]) -> dg.MaterializeResult[None]:
        lakehouse.prepare()
        result, sources = bring_in(lakehouse, feed.name, context.run.run_id, context.log.info)
        rows = _rows(lakehouse, [feed.raw_table, *_WRITTEN_ALONGSIDE])
        metadata = {**_metadata(lakehouse, feed, result, rows[feed.raw_table]), **_source_metadata(sources)}
        failures = [report.in_words() for report in sources if report.problem and not report.stale]
        if result.broken:
            refused = f"{len(result.broken)} files of {feed.name} were refused, the others were taken in: "
            failures.insert(0, refused + "; ".join(result.broken))
        if failures:
            raise dg.Failure(description="; ".join(failures), metadata=metadata, allow_retries=False)
        for report in sources:
            if report.stale:
                context.log.warning("the data of a source is stale: %s", report.in_words())
        for name in _WRITTEN_ALONGSIDE:
            context.log_event(dg.AssetMaterialization(name.split("."), metadata={"dagster/row_count": rows[name]}))
        return dg.MaterializeResult(metadata=metadata)

    return raw


def _metadata(lakehouse: Lakehouse, feed: Feed, result: Ingestion, rows: int) -> dict[str, dg.MetadataValue]:
    landing = lakehouse.settings.landing / feed.name
    facts: dict[str, object] = {
        "dagster/row_count": rows,
        "dagster/uri": landing.as_uri(),
        "new_files": result.ingested,
        "new_rows": result.rows,
        "known_files": len(result.known),
    }
    if not (result.ingested or result.known or result.repeated or result.empty or result.growing):
        facts["missing"] = f"no file in {landing}: everything downstream runs without {feed.name}"
    for name in ("empty", "repeated", "growing", "ignored", "broken", "notes"):
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


def _rows(lakehouse: Lakehouse, tables: Sequence[str]) -> dict[str, int]:
    counted = [f"SELECT '{table}', count(*) FROM {table}" for table in tables]
    return dict(lakehouse.query(" UNION ALL ".join(counted)).iter_rows())
