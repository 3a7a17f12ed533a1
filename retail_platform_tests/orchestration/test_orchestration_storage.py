"""The lake looks after itself: maintenance is an asset, scheduled, with a check of what it leaves."""

from datetime import datetime, timedelta

import dagster as dg

from retail_platform.lakehouse import Lakehouse, ReplaceTable
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.orchestration.assets.storage import lake_is_sound, storage_assets
from retail_platform.orchestration.build import build_definitions
from retail_platform.orchestration.io_manager import LakeIOManager
from retail_platform.orchestration.staleness import last_commits
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, sales


def test_a_maintenance_shows_its_figures_and_whether_the_lake_is_sound(settings: Settings) -> None:
    lake = Lakehouse(settings)
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    resources = {"lakehouse": lake, "io_manager": LakeIOManager(lake)}

    done = dg.materialize([*storage_assets(), lake_is_sound], resources=resources)
    (event,) = done.get_asset_materialization_events()
    assert event.materialization.metadata["snapshots_kept"].value == 2
    assert lake.read("storage.maintenance")["run_id"].to_list() == [done.run_id]
    assert [check.passed for check in done.get_asset_check_evaluations()] == [True]

    next(settings.lake_data.rglob("shop/sales/*.parquet")).unlink()
    done = dg.materialize([*storage_assets(), lake_is_sound], resources=resources)
    (check,) = done.get_asset_check_evaluations()
    assert (check.passed, check.metadata["findings"].value) == (False, 1)


def test_maintenance_is_scheduled_and_on() -> None:
    (schedule,) = build_definitions(Settings()).schedules or []
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_what_is_stale_is_told_from_commits_whose_snapshots_have_expired(settings: Settings) -> None:
    lake = Lakehouse(settings)
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 2))], BY)
    with dg.DagsterInstance.ephemeral() as instance:
        before = last_commits(lake, instance)["shop/sales"]
        maintain(lake, now=datetime.now().astimezone() + timedelta(days=31))
        maintain(lake, now=datetime.now().astimezone() + timedelta(days=31))
        assert before.snapshot_id not in lake.snapshots()["snapshot_id"].to_list()
        assert last_commits(lake, instance)["shop/sales"] == before
