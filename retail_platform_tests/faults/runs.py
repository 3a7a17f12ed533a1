"""kill -9 between a commit and Dagster's record of it: the lake has the rows, and Dagster's event log does not.

The law: the same command afterwards writes nothing of what was committed again, and makes the rest; Dagster does not
take the dead run for one that is under way; and once all is made, no sensor and no rule of staleness asks for anything.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from retail_platform.cleaning import public_holidays
from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Lakehouse, Provenance, ReplaceTable
from retail_platform.orchestration import sensors
from retail_platform.orchestration.runner import instance_of, prepare_home
from retail_platform.orchestration.sensors import clean_requests
from retail_platform.settings import Settings
from retail_platform_tests.faults.books import killed
from retail_platform_tests.faults.differences import contents
from retail_platform_tests.faults.ground import Ground, Outcome
from retail_platform_tests.faults.worker import ROWS, Order
from retail_platform_tests.faults.workers import workers


def kill_before_event(ground: Ground, rounds: int) -> Outcome:
    """The process of a run dies right after a commit: in turn that of the clean rows and that of the raw ones."""
    violations: list[str] = []
    lost: Counter[str] = Counter()
    with ground.home() as settings, workers() as begin:
        _begin_with_masters(settings)
        for number in range(rounds):
            order = Order(home=str(settings.home), catalog=settings.catalog, job="run", first=number, last=number)
            died = begin(replace(order, kill_at="committed", kill_in_commit=2 - number % 2)).end()
            table, broken = _after_the_kill(settings)
            lost[table] += 1
            before, written = contents(settings), _writes(settings, table)
            again = begin(order).end()
            if again.code:
                broken.append(f"the same command afterwards failed: {again.errors[-800:]}")
            broken += _after_the_rerun(settings, (number + 1) * ROWS)
            if contents(settings).get(table) != before.get(table) or _writes(settings, table) != written:
                broken.append(f"{table} was written again")
            wrong = [killed(died), *broken]
            violations += [f"round {number} ({table}): {words}" for words in wrong if words]
        newest = Lakehouse(settings).snapshot_id()
        begin(order).end()
        if Lakehouse(settings).snapshot_id() != newest:
            violations.append("a last run, with nothing to do, wrote to the lake")
    seen = ", ".join(f"{count} events of {table} lost" for table, count in lost.items())
    return Outcome(rounds, seen, tuple(violations))


def _begin_with_masters(settings: Settings) -> None:
    """A home in which everything but sales was cleaned already."""
    prepare_home(settings)
    lake, calendar = Lakehouse(settings), TABLES["clean.calendar"]
    lake.prepare()
    lake.commit([ReplaceTable(calendar, public_holidays(settings.country, 2017, 2017))], Provenance(calendar.name, ""))


def _after_the_kill(settings: Settings) -> tuple[str, list[str]]:
    """The table whose event was lost, and what is wrong."""
    lake = Lakehouse(settings)
    newest = lake.commits().row(0, named=True)
    table = str(json.loads(newest["provenance"])["asset"])
    broken = []
    with instance_of(settings) as instance:
        made = instance.fetch_materializations(dg.AssetKey(table.split(".")), limit=100).records
        if any(record.event_log_entry.run_id == newest["run_id"] for record in made):
            broken.append("the fault was not made: Dagster has the event")
        asked = [*_asked(sensors.landing_files, settings, instance), *_asked(sensors.changed_days, settings, instance)]
        due = bool(clean_requests(lake, instance))
        if due != bool(asked):
            broken.append(f"cleaning is {'' if due else 'not '}due, and the sensors ask for {asked}")
    return table, broken


def _after_the_rerun(settings: Settings, expected: int) -> list[str]:
    lake = Lakehouse(settings)
    broken = []
    for table in ("raw.pos_sales", "clean.sales"):
        rows = lake.query(f"SELECT count(*) FROM {table}").item()
        if rows != expected:
            broken.append(f"{table} holds {rows} of {expected} rows")
    with instance_of(settings) as instance:
        asked: dict[str, Sequence[Any]] = {
            "cleaning": clean_requests(lake, instance),
            "the sensor of landing files": _asked(sensors.landing_files, settings, instance),
            "the sensor of changed days": _asked(sensors.changed_days, settings, instance),
            "a run that is dead": [run.run_id for run in instance.get_runs(_STARTED)],
        }
    return [*broken, *(f"{what} still waits: {for_what}" for what, for_what in asked.items() if for_what)]


_STARTED = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])


def _asked(sensor: dg.SensorDefinition, settings: Settings, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """What a sensor asks for that has seen nothing before."""
    context = dg.build_sensor_context(
        instance=instance, resources={"settings": settings, "lakehouse": Lakehouse(settings)}
    )
    result: Any = sensor(context)
    return [] if isinstance(result, dg.SkipReason) else list(result.run_requests or ())


def _writes(settings: Settings, table: str) -> list[int]:
    """The snapshots in which a table was written."""
    commits = Lakehouse(settings).commits().select("snapshot_id", "provenance").drop_nulls()
    return [number for number, text in commits.iter_rows() if json.loads(text)["asset"] == table]
