"""A run whose process is gone holds nobody back: neither the sensors, nor the next run, nor the daemon."""

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._daemon.types import DaemonHeartbeat

from retail_platform.orchestration import sensors
from retail_platform.orchestration.build import build_definitions
from retail_platform.orchestration.dead_runs import PROCESS, _identity, give_up_dead_runs, process_tag
from retail_platform.orchestration.runner import instance_of
from retail_platform_tests.simulated_retailer import Retailer

SALE = {"business_date": "2017-03-01", "store_id": "S1", "item_id": "I1", "quantity": 1}
RAW = dg.AssetKey(["raw", "pos_sales"])


def tag_of_a_process_that_ended() -> Mapping[str, str]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        return {PROCESS: _identity(process.pid)}


def begin(retailer: Retailer, instance: dg.DagsterInstance, tags: Mapping[str, str]) -> dg.DagsterRun:
    """A run of the raw sales that has started and will never say more."""
    job = build_definitions(retailer.settings).resolve_implicit_global_asset_job_def()
    return instance.create_run_for_job(
        job, tags=tags, status=dg.DagsterRunStatus.STARTED, asset_selection=frozenset({RAW})
    )


def is_asked_for(retailer: Retailer, instance: dg.DagsterInstance) -> bool:
    context = dg.build_sensor_context(
        instance=instance, resources={"settings": retailer.settings, "lakehouse": retailer.lake}
    )
    return isinstance(sensors.landing_files(context), dg.SensorResult)


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_dead_run_of_the_command_line_is_told_from_a_living_one_and_given_up(new_retailer: Retailer) -> None:
    new_retailer.land("pos_sales", "new.csv", [SALE])
    dead_tag = tag_of_a_process_that_ended()
    with instance_of(new_retailer.settings) as instance:
        dead = begin(new_retailer, instance, dead_tag)
        assert is_asked_for(new_retailer, instance)

        alive = begin(new_retailer, instance, process_tag())
        assert not is_asked_for(new_retailer, instance)
        elsewhere = begin(new_retailer, instance, {PROCESS: f"another-machine {dead_tag[PROCESS].partition(' ')[2]}"})
        of_daemon = begin(new_retailer, instance, {})
        instance.add_daemon_heartbeat(heartbeat(datetime.now(UTC)))

        assert give_up_dead_runs(instance) == [dead.run_id]
        assert status(instance, dead) == dg.DagsterRunStatus.FAILURE
        assert give_up_dead_runs(instance, daemon_starts=True) == [of_daemon.run_id]
        of_daemon = begin(new_retailer, instance, {})
        instance.add_daemon_heartbeat(heartbeat(datetime.now(UTC) - timedelta(hours=1)))
        assert give_up_dead_runs(instance) == [of_daemon.run_id]
        for run in (alive, elsewhere):
            assert status(instance, run) == dg.DagsterRunStatus.STARTED


def test_a_dead_run_keeps_no_place_in_a_pool(new_retailer: Retailer) -> None:
    with instance_of(new_retailer.settings) as instance:
        dead = begin(new_retailer, instance, tag_of_a_process_that_ended())
        storage = instance.event_log_storage
        storage.set_concurrency_slots("clean.sales", 1)
        assert storage.claim_concurrency_slot("clean.sales", dead.run_id, "clean__sales").is_claimed

        give_up_dead_runs(instance)
        assert storage.claim_concurrency_slot("clean.sales", "the next run", "clean__sales").is_claimed


def heartbeat(at: datetime) -> DaemonHeartbeat:
    return DaemonHeartbeat(at.timestamp(), "SENSOR", "a daemon", [])
