"""Assets that no step of ours makes: the systems that data comes from, and tables that several steps write to."""

import dagster as dg

from retail_platform.contracts import FEEDS
from retail_platform.orchestration.specs import spec
from retail_platform.settings import Settings

_IN_WORDS = {
    "point_of_sale": "Tills of the stores",
    "warehouse_management": "Stock ledger of stores and warehouses",
    "product_master": "Item master data",
    "store_master": "Store master data",
    "pricing": "Price list system",
    "promotion_planning": "Promotion planning",
    "events_calendar": "Calendar of events",
    "weather_service": "Weather service",
    "statistics_office": "Publisher of economic figures",
}


def source_key(feed: str) -> dg.AssetKey:
    return dg.AssetKey(["source", FEEDS[feed].source_system])


def source_specs(settings: Settings) -> list[dg.AssetSpec]:
    """One external asset per source system, so that lineage starts where the data does; with the configured sources."""
    return [
        dg.AssetSpec(
            source_key(feed.name),
            group_name="source",
            description=f"{_IN_WORDS[feed.source_system]}: delivers the feed `{feed.name}` into the landing zone.",
            owners=[feed.owner],
            kinds={"source"},
            tags={"classification": "internal", "tier": "source"},
            code_version="1",
            metadata={"landing_folder": f"landing/{feed.name}/", **_configured(settings, feed.name)},
        )
        for feed in FEEDS.values()
    ]


def _configured(settings: Settings, feed: str) -> dict[str, str]:
    """What each configured source of a feed reads, without a secret: the settings hold none."""
    return {f"source {name}": source.in_words() for name, source in settings.sources_of(feed).items()}


def written_alongside_specs() -> list[dg.AssetSpec]:
    """Tables that other assets write in their own transactions (the ledger, the quarantine, the alerts), and those that
    only decisions of people write."""
    raw = [feed.raw_table.split(".") for feed in FEEDS.values()]
    return [
        spec("raw.ingested_files", deps=[source_key(name) for name in FEEDS], code_version="1"),
        spec("raw.files_left_out", deps=[source_key(name) for name in FEEDS], code_version="1"),
        spec("quarantine.rejected_rows", deps=raw, code_version="1"),
        spec("quarantine.duplicate_rows", deps=raw, code_version="1"),
        spec("quarantine.withheld_days", deps=raw, code_version="1"),
        spec(
            "quarantine.waivers",
            deps=[["quarantine", "rejected_rows"], ["governance", "audit_log"]],
            code_version="1",
        ),
        spec("governance.audit_log", code_version="1"),
        spec("governance.commits", code_version="1"),
        spec("model.decisions", deps=[["model", "backtest_forecasts"]], code_version="1"),
        spec("forecast.nodes", deps=[["forecast", "demand"], ["features", "demand"]], code_version="1"),
        spec("monitoring.alerts", deps=[["forecast", "demand"], ["monitoring", "data_drift"]], code_version="1"),
    ]
