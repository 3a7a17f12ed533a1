"""What starts work without a click: new landing files, changed business days, drift that holds, automation.

Sensors look and ask; they write nothing. Each keeps a cursor, and names its requests by what they are for, so that
a tick that is repeated asks for nothing twice.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.contracts import FEEDS, Feed
from retail_platform.lakehouse import Lakehouse, LakeError
from retail_platform.settings import Settings
from retail_platform.sources.files import discover

LONGEST_GAP_DAYS = 7
MOST_RANGES = 20

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def sensors(settings: Settings) -> list[dg.SensorDefinition]:
    automation = dg.AutomationConditionSensorDefinition(
        "refresh_downstream",
        target=dg.AssetSelection.groups("features", "model", "forecast", "monitoring"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
        description="Refreshes features, forecasts and orders after the tables they read from.",
    )
    return [landing_files, changed_days, drift_holds, automation]


@dg.sensor(
    target=dg.AssetSelection.groups("raw") - dg.AssetSelection.assets(["raw", "ingested_files"]),
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the raw table of every feed that has a landing file not seen before.",
)
def landing_files(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult | dg.SkipReason:
    seen: dict[str, str] = json.loads(context.cursor) if context.cursor else {}
    now = {feed: _listing(settings, feed) for feed in FEEDS}
    changed = [feed for feed, listing in now.items() if listing and listing != seen.get(feed)]
    if not changed:
        return dg.SkipReason(f"nothing new in {settings.landing}")
    keys = [dg.AssetKey(FEEDS[feed].raw_table.split(".")) for feed in changed]
    run_key = hashlib.sha256(json.dumps([(feed, now[feed]) for feed in changed]).encode()).hexdigest()
    return dg.SensorResult(
        run_requests=[dg.RunRequest(run_key=run_key, asset_selection=keys)], cursor=json.dumps({**seen, **now})
    )


@dg.sensor(
    target=dg.AssetSelection.groups("clean"),
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the clean tables of the feeds that new files belong to: of daily ones, just the days touched.",
)
def changed_days(
    context: dg.SensorEvaluationContext, lakehouse: dg.ResourceParam[Lakehouse]
) -> dg.SensorResult | dg.SkipReason:
    since = context.cursor or ""
    try:
        ledger = lakehouse.query(
            "SELECT file_id, feed, ingested_at::VARCHAR AS ingested_at FROM raw.ingested_files "
            "WHERE ingested_at::VARCHAR > ? ORDER BY ingested_at",
            [since],
        )
    except LakeError as error:
        return dg.SkipReason(f"no ledger to read yet: {error}")
    if ledger.is_empty():
        return dg.SkipReason("no file was taken in since the last look")
    if _ingesting(context.instance):
        # Items and stores that arrive with the sales they belong to must be there before the sales are judged.
        return dg.SkipReason("landing files are being taken in; their days are asked for together afterwards")
    requests = list(_clean_requests(lakehouse, ledger))
    return dg.SensorResult(run_requests=requests, cursor=str(ledger["ingested_at"].max()))


@dg.sensor(
    target=dg.AssetSelection.groups("model", "forecast"),
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for retraining when the demand panel has drifted in so many measurements in a row.",
)
def drift_holds(
    context: dg.SensorEvaluationContext,
    lakehouse: dg.ResourceParam[Lakehouse],
    settings: dg.ResourceParam[Settings],
) -> dg.SensorResult | dg.SkipReason:
    from retail_platform.monitoring.drift import drift_holds as holds

    try:
        measured = lakehouse.read("monitoring.data_drift")
    except LakeError as error:
        return dg.SkipReason(f"no drift measured yet: {error}")
    if measured.is_empty():
        return dg.SkipReason("no drift measured yet")
    latest = str(measured["measured_at"].max())
    if latest == context.cursor:
        return dg.SkipReason("no new measurement since the last look")
    if not holds(measured, settings.drift):
        context.update_cursor(latest)
        return dg.SkipReason("the demand panel has not drifted, or not for long enough")
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"drift-{latest}")], cursor=latest)


def ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    """Runs of days, gaps of up to a week bridged; one span where the days are too scattered for that."""
    found: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if found and day - found[-1][1] <= timedelta(days=LONGEST_GAP_DAYS):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return [(found[0][0], found[-1][1])] if len(found) > MOST_RANGES else found


def range_tags(first: date, last: date) -> dict[str, str]:
    return {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}


def _listing(settings: Settings, feed: str) -> str:
    """A digest of the feed's files by name, size and time: changes whenever a file comes or changes."""
    files, _ = discover(settings.landing, feed)
    if not files:
        return ""
    facts = [(file.name, file.bytes, file.modified_at.isoformat()) for file in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _ingesting(instance: dg.DagsterInstance) -> bool:
    running = instance.get_runs(
        dg.RunsFilter(
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
            ]
        )
    )
    return any(key.path[0] == "raw" for run in running for key in run.asset_selection or ())


def _clean_requests(lakehouse: Lakehouse, ledger: pl.DataFrame) -> Iterator[dg.RunRequest]:
    """Masters first, in one run with the first range of days, so that they are clean before what refers to them."""
    feeds = {name: group["file_id"].to_list() for (name,), group in ledger.group_by("feed", maintain_order=True)}
    masters = [_clean_key(FEEDS[str(name)]) for name in feeds if FEEDS[str(name)].date_column is None]
    days: dict[tuple[date, date], list[dg.AssetKey]] = {}
    for name, files in feeds.items():
        feed = FEEDS[str(name)]
        if feed.date_column is not None:
            for span in ranges(_days(lakehouse, feed, files)):
                days.setdefault(span, []).append(_clean_key(feed))
    batch = hashlib.sha256("".join(sorted(ledger["file_id"])).encode()).hexdigest()[:16]
    if masters and not days:
        yield dg.RunRequest(run_key=f"{batch}-masters", asset_selection=masters)
    for (first, last), keys in sorted(days.items()):
        yield dg.RunRequest(
            run_key=f"{batch}-{first}-{last}-{len(keys)}",
            asset_selection=[*masters, *keys],
            tags=range_tags(first, last),
        )
        masters = []


def _days(lakehouse: Lakehouse, feed: Feed, files: Sequence[Any]) -> list[date]:
    found = lakehouse.query(
        f"SELECT DISTINCT partition_date FROM {feed.raw_table} WHERE file_id IN (SELECT unnest(?))", [list(files)]
    )
    return found.to_series().to_list()


def _clean_key(feed: Feed) -> dg.AssetKey:
    return dg.AssetKey(feed.clean_table.split("."))
