"""Runs from the command line: the same assets in this process, recorded in the same instance as the UI's.

Here: which assets in which order, brought up to date. Not here: what is shown of it (`cli.py`).
"""

import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.execute_in_process import core_execute_in_process
from sqlalchemy.exc import SQLAlchemyError

from retail_platform.contracts import FEEDS
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.build import build_definitions
from retail_platform.orchestration.dead_runs import give_up_dead_runs, process_tag
from retail_platform.orchestration.partitions import WHOLE_PANEL, shard_names
from retail_platform.orchestration.reject_budget import refusal, standing
from retail_platform.orchestration.sensors import clean_requests, range_tags
from retail_platform.orchestration.staleness import last_commits, masters_changed_at, stale_keys
from retail_platform.settings import Settings

_OUR_ERROR = re.compile(r"^retail_platform\.[\w.]+: ")
_EVENT_LOG = """
event_log_storage:
  module: retail_platform.orchestration.event_log
  class: BatchedSqliteEventLog
  config:
    base_dir: {folder}
"""

SCIENCE = ("features", "model", "forecast", "monitoring")

Progress = Callable[[str], None]


class RunFailed(Exception):
    """A run did not succeed; the message says which assets failed and why."""


@dataclass(frozen=True)
class Step:
    """One run: what it made and how long it took."""

    name: str
    assets: tuple[str, ...]
    seconds: float


def prepare_home(settings: Settings) -> None:
    """Create the home folder with its landing zone and Dagster's folder."""
    for feed in FEEDS:
        (settings.landing / feed).mkdir(parents=True, exist_ok=True)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    source = Path(__file__).parents[2] / "dagster.yaml"
    if source.is_file():
        text = source.read_text(encoding="utf-8") + _EVENT_LOG.format(folder=json.dumps(_event_log_folder(settings)))
        (settings.dagster_home / "dagster.yaml").write_text(text, encoding="utf-8")


def _event_log_folder(settings: Settings) -> str:
    """Where Dagster keeps its event log in SQLite if nothing else is said."""
    return str(settings.dagster_home.absolute() / "history" / "runs")


@contextmanager
def instance_of(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the home folder. Raises `RunFailed` where its records cannot be read or written."""
    prepare_home(settings)
    try:
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            yield instance
    except SQLAlchemyError as error:
        raise RunFailed(
            f"Dagster's own records in {settings.dagster_home} cannot be read or written: "
            f"{getattr(error, 'orig', error)}; see whether there is room and whether the folder may be written, and "
            "run it again"
        ) from error


def bring_up_to_date(lakehouse: Lakehouse, progress: Progress) -> list[Step]:
    """Take in new files, clean what changed, and refresh whatever is older than what it reads from.

    Returns the runs that were needed; none but the look at the landing zone where nothing is new.
    """
    definitions = build_definitions(lakehouse.settings, lakehouse)
    lakehouse.prepare()
    with instance_of(lakehouse.settings) as instance:
        raw = [dg.AssetKey(feed.raw_table.split(".")) for feed in FEEDS.values()]
        steps: list[Step] = []
        complaints: list[str] = []
        try:
            steps.append(_run(definitions, instance, "take in landing files", raw, {}, progress))
        except RunFailed as broken:
            # The other files were taken in; they must not wait until somebody has mended the broken one.
            complaints.append(str(broken))
        asked: set[str | None] = set()
        while requests := [r for r in clean_requests(lakehouse, instance) if r.run_key not in asked]:
            for request in requests:
                asked.add(request.run_key)
                keys = list(request.asset_selection or ())
                try:
                    steps.append(_run(definitions, instance, "clean", keys, request.tags, progress))
                except RunFailed as failed:
                    # Days over their reject budget are withheld; the others go on without them.
                    if standing(lakehouse, masters_changed_at(last_commits(lakehouse, instance))).is_empty():
                        raise
                    complaints.append(str(failed))
        repository = definitions.get_repository_def()
        stale = stale_keys(dg.AssetSelection.groups(*SCIENCE), repository, last_commits(lakehouse, instance))
        try:
            steps += _run_by_partition(definitions, instance, "forecast", stale, progress)
        except RunFailed as failed:
            complaints.append(str(failed))
        withheld = standing(lakehouse, masters_changed_at(last_commits(lakehouse, instance)))
    still_withheld = [refusal(days) for days in withheld.partition_by("feed", maintain_order=True)]
    complaints += [words for words in still_withheld if not any(words in told for told in complaints)]
    if complaints:
        raise RunFailed("; ".join(complaints))
    return steps


def materialize(
    lakehouse: Lakehouse, selection: str, days: tuple[date, date] | None, partition: str | None, progress: Progress
) -> list[Step]:
    """Materialize a selection, in Dagster's selection syntax, whether it is up to date or not."""
    settings = lakehouse.settings
    definitions = build_definitions(settings, lakehouse)
    graph = definitions.get_repository_def().asset_graph
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            chosen = dg.AssetSelection.from_string(selection).resolve(graph)
    except dg.DagsterError as error:
        raise RunFailed(f"{selection} cannot be read as a selection of assets ({error}); try 'group:clean'") from None
    keys = [key for key in graph.toposorted_asset_keys if key in chosen and graph.get(key).is_materializable]
    if not keys:
        raise RunFailed(f"no asset matches the selection {selection!r}; try for example 'group:clean'")
    if partition and partition not in shard_names(settings):
        raise RunFailed(f"there is no shard {partition}; the settings know {', '.join(shard_names(settings))}")
    with instance_of(settings) as instance:
        if days:
            return [_run(definitions, instance, selection, keys, range_tags(*days), progress)]
        if partition and partition != WHOLE_PANEL:
            return [_run(definitions, instance, selection, keys, {"dagster/partition": partition}, progress)]
        by_day = [str(key.to_user_string()) for key in keys if _is_daily(definitions, key)]
        if by_day:
            raise RunFailed(
                f"{', '.join(by_day)}: cut into business days; say which, for example "
                "--partition 2017-01-01..2017-01-31"
            )
        return _run_by_partition(definitions, instance, selection, keys, progress)


def note_decision(settings: Settings, words: str) -> None:
    """Tell Dagster that a person decided which model is in force: the daemon then forecasts with it."""
    with instance_of(settings) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(["model", "decisions"], description=words, metadata={"decision": words})
        )


def words_of_intake(settings: Settings, feeds: Sequence[str], since: datetime) -> list[str]:
    """What the raw tables of the feeds that were made since then have to say: how the columns of their files differ
    from those before, and what became of each configured source."""
    words: list[str] = []
    with instance_of(settings) as instance:
        for feed in feeds:
            event = instance.get_latest_materialization_event(dg.AssetKey(FEEDS[feed].raw_table.split(".")))
            if event and event.asset_materialization and event.timestamp >= since.timestamp():
                facts = event.asset_materialization.metadata
                words += [f"{feed}/{note}" for note in _list(facts.get("notes"))]
                words += _list(facts.get("sources"))
    return words


def _list(said: dg.MetadataValue[Any] | None) -> list[str]:
    return list(map(str, said.data)) if isinstance(said, dg.JsonMetadataValue) and isinstance(said.data, list) else []


def _run_by_partition(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    keys: Sequence[dg.AssetKey],
    progress: Progress,
) -> list[Step]:
    """One run; where the stores are cut into shards, one per shard, and runs of their own for what is not cut."""
    graph = definitions.get_repository_def().asset_graph
    steps = []
    # In the order of the graph, so that what is not cut stands between the shards' runs where it belongs.
    for partitions, group in groupby(keys, lambda key: graph.get(key).partitions_def):
        chosen = list(group)
        tags = [{"dagster/partition": shard} for shard in partitions.get_partition_keys()] if partitions else [{}]
        steps += [_run(definitions, instance, name, chosen, tag, progress) for tag in tags]
    return steps


def _run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    keys: Sequence[dg.AssetKey],
    tags: Mapping[str, str],
    progress: Progress,
) -> Step:
    give_up_dead_runs(instance)
    job = definitions.resolve_implicit_global_asset_job_def()
    run_id = str(uuid4())
    instance.add_event_listener(run_id, lambda entry: _follow(entry, progress))
    started = monotonic()
    result = _execute(job, instance, keys, {**tags, **process_tag()}, run_id)
    if not result.success:
        raise RunFailed(_why(result))
    made = (event.asset_key for event in result.get_asset_materialization_events())
    return Step(name, tuple(dict.fromkeys(key.to_user_string() for key in made if key)), monotonic() - started)


def _execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    keys: Sequence[dg.AssetKey],
    tags: Mapping[str, str],
    run_id: str,
) -> dg.ExecuteInProcessResult:
    """As `job.execute_in_process`, which keeps the values of all assets until the end of the run: a panel of many
    series and its history for nothing.
    """
    return core_execute_in_process(
        # The command line shows steps of its own; Dagster's log lines stay in its event log.
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        job=InMemoryJob(job_def=job.as_ephemeral_job({}, {}, asset_selection=list(keys))),
        instance=instance,
        output_capturing_enabled=False,
        raise_on_error=False,
        run_tags={**job.run_tags, **tags},
        run_id=run_id,
        asset_selection=frozenset(keys),
    )


def _follow(entry: dg.EventLogEntry, progress: Progress) -> None:
    event = entry.dagster_event
    if event is not None and event.event_type_value == "STEP_START":
        progress(str(event.step_key).replace("__", "."))


def _why(result: dg.ExecuteInProcessResult) -> str:
    reasons = []
    for event in result.all_events:
        if event.event_type_value == "STEP_FAILURE":
            failure = event.step_failure_data
            error = failure.user_failure_data.description if failure.user_failure_data else None
            # Below Dagster's own wrapper; what lies deeper is for the log, and says less to a reader.
            cause = failure.error.cause or failure.error if failure.error else None
            text = error or (_OUR_ERROR.sub("", cause.message).strip() if cause else "no reason was given")
            reasons.append(f"{str(event.step_key).replace('__', '.')}: {text}")
    return "; ".join(reasons) or "the run failed; see its log in the Dagster UI"


def _is_daily(definitions: dg.Definitions, key: dg.AssetKey) -> bool:
    partitions = definitions.get_repository_def().asset_graph.get(key).partitions_def
    return isinstance(partitions, dg.DailyPartitionsDefinition)
