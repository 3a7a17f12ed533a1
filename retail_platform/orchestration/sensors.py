"""What starts work without a click: new landing files, changed business days, drift that holds, automation.

Sensors look and ask; they write nothing. Each keeps a cursor, and names its requests by what they are for, so that
a tick that is repeated asks for nothing twice.
"""

import hashlib
import json
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from retail_platform.contracts import FEEDS, Feed
from retail_platform.lakehouse import LakeError, Lakehouse
from retail_platform.orchestration.dead_runs import is_dead
from retail_platform.orchestration.ingestion import waiting_files
from retail_platform.orchestration.partitions import WHOLE_PANEL, shard_names
from retail_platform.orchestration.reject_budget import settings_digest
from retail_platform.orchestration.staleness import (
    MASTERS,
    LastCommit,
    last_commits,
    pending_days,
    stale_masters,
    standing_withheld,
)
from retail_platform.settings import Settings
from retail_platform.sources.files import LandingFile

LONGEST_GAP_DAYS = 7
MOST_RANGES = 20
LONGEST_RUN = timedelta(hours=4)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)

RAW_TABLES = dg.AssetSelection.assets(*(feed.raw_table.split(".") for feed in FEEDS.values()))

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def sensors() -> list[dg.SensorDefinition]:
    automation = dg.AutomationConditionSensorDefinition(
        "refresh_downstream",
        target=dg.AssetSelection.groups("features", "model", "forecast", "monitoring"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
        description="Refreshes features, forecasts and orders after the tables they read from.",
    )
    return [landing_files, sources_due, changed_days, drift_holds, automation]


@dg.sensor(
    target=RAW_TABLES,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the raw table of every feed that has a complete landing file nobody has looked into.",
)
def landing_files(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    lakehouse: dg.ResourceParam[Lakehouse],
) -> dg.SensorResult | dg.SkipReason:
    before = {feed: _Asked(**asked) for feed, asked in json.loads(context.cursor or "{}").items()}
    now = datetime.now(UTC)
    quiet_seconds = settings.intake.quiet_seconds
    seen = {
        feed: _look(files, before.get(feed, _Asked()), now, quiet_seconds)
        for feed, files in waiting_files(lakehouse).items()
    }
    due = [feed for feed, asked in seen.items() if asked.is_due(now)]
    if not due or _under_way(context.instance, {"raw"}):
        context.update_cursor(_cursor(seen))
        growing = [feed for feed, asked in seen.items() if asked.growing]
        return dg.SkipReason(
            f"files of {', '.join(growing)} may still be growing"
            if growing
            else f"nothing new in {settings.landing}, or asked for already"
        )
    keys = [dg.AssetKey(FEEDS[feed].raw_table.split(".")) for feed in due]
    run_key = _digest(*((feed, seen[feed].complete, seen[feed].times) for feed in due))
    asked = {feed: look.asked_at(now) if feed in due else look for feed, look in seen.items()}
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=run_key, asset_selection=keys)], cursor=_cursor(asked))


@dg.sensor(
    target=RAW_TABLES,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the raw table of every feed with a source that is due by its interval.",
)
def sources_due(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings]
) -> dg.SensorResult | dg.SkipReason:
    if not settings.sources:
        return dg.SkipReason("the settings name no sources")
    # Intervals are counted on the clock and not since the last request, so that a lost cursor asks for nothing twice.
    minutes = int(datetime.now(UTC).timestamp()) // 60
    now = {name: minutes // source.interval_minutes for name, source in settings.sources.items()}
    asked: dict[str, int] = json.loads(context.cursor) if context.cursor else {}
    due = {name: number for name, number in now.items() if number != asked.get(name)}
    if not due:
        return dg.SkipReason("no source is due")
    feeds = dict.fromkeys(settings.sources[name].feed for name in due)
    request = dg.RunRequest(
        run_key="-".join(f"{name}.{number}" for name, number in due.items()),
        asset_selection=[dg.AssetKey(FEEDS[feed].raw_table.split(".")) for feed in feeds],
    )
    return dg.SensorResult(run_requests=[request], cursor=json.dumps(now))


@dg.sensor(
    target=dg.AssetSelection.groups("clean"),
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for the clean tables that new files belong to: of daily ones, just the days touched.",
)
def changed_days(
    context: dg.SensorEvaluationContext, lakehouse: dg.ResourceParam[Lakehouse]
) -> dg.SensorResult | dg.SkipReason:
    try:
        # With other settings, days that were withheld may be good enough.
        snapshot = f"{lakehouse.snapshot_id()}-{_feed_settings(lakehouse.settings)}"
    except LakeError as error:
        return dg.SkipReason(f"no lake to read yet: {error}")
    if snapshot == context.cursor:
        return dg.SkipReason("nothing was written to the lake since the last look")
    if _under_way(context.instance, {"raw", "clean"}):
        # Items and stores that arrive with the sales they belong to must be there before the sales are judged, and
        # days that are being cleaned must not be asked for a second time.
        return dg.SkipReason("landing files are being taken in or cleaned; what is left is asked for afterwards")
    requests = clean_requests(lakehouse, context.instance)
    # Days follow the masters without another write to the lake where a master has no rows, so the place is kept.
    masters_only = any(RANGE_START not in request.tags for request in requests)
    return dg.SensorResult(run_requests=requests, cursor=context.cursor if masters_only else snapshot)


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
        # What was measured before the last training has had its answer: drift must hold again to be asked again.
        measured = lakehouse.read(
            "monitoring.data_drift",
            where="measured_at > (SELECT coalesce(max(changed_at), '-infinity') FROM model.registry "
            "WHERE changed_by LIKE 'run %')",
        )
    except LakeError as error:
        return dg.SkipReason(f"no drift measured yet: {error}")
    if measured.is_empty():
        return dg.SkipReason("no drift measured since the last training")
    latest = str(measured["measured_at"].max())
    if latest == context.cursor:
        return dg.SkipReason("no new measurement since the last look")
    if not holds(measured, settings.drift):
        context.update_cursor(latest)
        return dg.SkipReason("the demand panel has not drifted, or not for long enough")
    requests = [
        dg.RunRequest(run_key=f"drift-{latest}-{shard}", partition_key=None if shard == WHOLE_PANEL else shard)
        for shard in shard_names(settings)
    ]
    return dg.SensorResult(run_requests=requests, cursor=latest)


def ranges(days: Iterable[date], withheld: Iterable[date] = ()) -> list[tuple[date, date]]:
    """Runs of days, gaps of up to a week bridged; one span where the days are too scattered for that.

    No range goes over a `withheld` day, whose rows would fail the run for the others.
    """
    barriers = sorted(set(withheld))
    between: dict[int, list[date]] = {}
    for day in sorted(set(days) - set(barriers)):
        between.setdefault(bisect(barriers, day), []).append(day)
    return [found for group in between.values() for found in _bridged(group)]


def _bridged(days: Sequence[date]) -> list[tuple[date, date]]:
    found: list[tuple[date, date]] = []
    for day in days:
        if found and day - found[-1][1] <= timedelta(days=LONGEST_GAP_DAYS):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return [(found[0][0], found[-1][1])] if len(found) > MOST_RANGES else found


def range_tags(first: date, last: date) -> dict[str, str]:
    return {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}


@dataclass(frozen=True)
class _Asked:
    """Files of a feed that wait: a digest of the complete ones, with how often and when they were asked for, and those
    that were written to a moment before.

    A run that takes files in, or refuses them, ends their waiting. They are asked for again, at growing intervals,
    where it did not: it may have failed of a full disk, or of a table that another process was writing.
    """

    complete: str = ""
    recent: Sequence[str] = ()
    growing: bool = False
    times: int = 0
    last: float = 0

    def is_due(self, now: datetime) -> bool:
        pause = min(FIRST_PAUSE * 2 ** max(self.times - 1, 0), LONGEST_PAUSE).total_seconds() if self.times else 0
        return bool(self.complete) and now.timestamp() - self.last >= pause

    def asked_at(self, now: datetime) -> "_Asked":
        return replace(self, times=self.times + 1, last=now.timestamp())


def _look(waiting: Sequence[LandingFile], before: _Asked, now: datetime, quiet_seconds: float) -> _Asked:
    files = {_digest(file.name, file.bytes, file.modified_at): file for file in waiting}
    clock = now.replace(tzinfo=None)
    recent = [name for name, file in files.items() if not file.is_quiet(clock, quiet_seconds)]
    # The clock of a file server may be wrong, so a file that did not change between two looks is complete too.
    complete = [name for name in files if name not in recent or name in before.recent]
    digest = _digest(*complete) if complete else ""
    if digest == before.complete:
        return replace(before, recent=recent, growing=len(complete) < len(files))
    return _Asked(digest, recent, growing=len(complete) < len(files))


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def _cursor(seen: Mapping[str, _Asked]) -> str:
    return json.dumps({feed: asdict(asked) for feed, asked in seen.items() if asked != _Asked()})


def _under_way(instance: dg.DagsterInstance, groups: AbstractSet[str]) -> bool:
    """Whether a run of these groups is queued or running; one that began long ago counts as dead, as does one whose
    process has ended."""
    running = instance.get_runs(
        dg.RunsFilter(
            created_after=datetime.now(UTC) - LONGEST_RUN,
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
            ],
        )
    )
    alive = [run for run in running if not is_dead(run)]
    return any(key.path[0] in groups for run in alive for key in run.asset_selection or ())


def clean_requests(lakehouse: Lakehouse, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """Runs that bring the clean tables up to date: the masters alone while one of them is stale, since sales must not
    be judged by an old one; else one run for each range of days.

    The key of a request changes only with what has arrived, what was waived, and the settings of the feeds: a run
    that failed is not asked for again before. Withheld days are left out until there is a reason to judge them anew.
    """
    commits = last_commits(lakehouse, instance)
    withheld = standing_withheld(lakehouse, commits)
    files = lakehouse.read("raw.ingested_files", columns=["file_id"]).to_series().sort()
    waived = lakehouse.query("SELECT count(*) FROM quarantine.waivers").item()
    facts = [*files, str(waived), _feed_settings(lakehouse.settings)]
    arrived = hashlib.sha256("".join(facts).encode()).hexdigest()[:16]
    masters = [_clean_key(feed) for feed in stale_masters(commits, withheld)]
    if masters:
        return [dg.RunRequest(run_key=_run_key(arrived, masters, commits), asset_selection=masters)]
    days: dict[tuple[date, date], list[dg.AssetKey]] = {}
    for feed in FEEDS.values():
        if feed.date_column is not None:
            left_out = [day for day in withheld.get(feed.name, []) if day is not None]
            for span in ranges(pending_days(lakehouse, feed, commits), left_out):
                days.setdefault(span, []).append(_clean_key(feed))
    return [
        dg.RunRequest(
            run_key=f"{_run_key(arrived, keys, commits)}-{first}-{last}",
            asset_selection=keys,
            tags=range_tags(first, last),
        )
        for (first, last), keys in sorted(days.items())
    ]


def _run_key(arrived: str, keys: Sequence[dg.AssetKey], commits: Mapping[str, LastCommit]) -> str:
    """What has arrived, what is asked for, and the masters by which it will be judged."""
    judged_by = [commits[name].snapshot_id for name in MASTERS if name in commits]
    return "-".join([arrived, *map(str, judged_by), *(key.path[-1] for key in keys)])


def _feed_settings(settings: Settings) -> str:
    digests = "".join(settings_digest(settings, feed) for feed in FEEDS.values())
    return hashlib.sha256(digests.encode()).hexdigest()[:16]


def _clean_key(feed: Feed) -> dg.AssetKey:
    return dg.AssetKey(feed.clean_table.split("."))
