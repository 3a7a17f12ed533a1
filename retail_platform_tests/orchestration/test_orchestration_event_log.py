"""The event log of a run over many days: written in batches, and the same as Dagster's own."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from retail_platform.orchestration.event_log import BatchedSqliteEventLog
from retail_platform.orchestration.runner import instance_of, range_tags
from retail_platform_tests.simulated_retailer import Retailer

FIRST, DAYS = date(2017, 1, 1), 60


@dg.asset(
    partitions_def=dg.DailyPartitionsDefinition(FIRST.isoformat()), backfill_policy=dg.BackfillPolicy.single_run()
)
def sales() -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(metadata={"rows": 7})


def clean(instance: dg.DagsterInstance) -> str:
    job = dg.Definitions(assets=[sales]).resolve_implicit_global_asset_job_def()
    days = range_tags(FIRST, FIRST + timedelta(days=DAYS - 1))
    return job.execute_in_process(instance=instance, tags=days).run_id


def facts(instance: dg.DagsterInstance, run_id: str) -> tuple[Any, ...]:
    key = dg.AssetKey("sales")
    latest = instance.get_latest_materialization_event(key)
    assert latest is not None
    assert latest.dagster_event is not None
    return (
        sorted(instance.get_materialized_partitions(key)),
        [record.partition_key for record in instance.fetch_materializations(key, limit=1000).records],
        latest.dagster_event.partition,
        [event.dagster_event_type for event in instance.all_logs(run_id)],
    )


def test_a_run_over_many_days_is_logged_as_by_dagster_itself(new_retailer: Retailer, tmp_path: Path) -> None:
    with instance_of(new_retailer.settings) as instance, dg.DagsterInstance.local_temp(str(tmp_path)) as plain:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLog)
        own, dagsters = facts(instance, clean(instance)), facts(plain, clean(plain))
    assert own == dagsters
    assert len(own[0]) == DAYS


def test_the_days_of_a_step_are_few_transactions(new_retailer: Retailer, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    open_shard = BatchedSqliteEventLog._open

    @contextmanager
    def counting(self: BatchedSqliteEventLog, shard: str) -> Iterator[Any]:
        opened.append(shard)
        with open_shard(self, shard) as connection:
            yield connection

    monkeypatch.setattr(BatchedSqliteEventLog, "_open", counting)
    with instance_of(new_retailer.settings) as instance:
        clean(instance)
    assert 0 < len(opened) < DAYS


def test_tables_and_columns_that_are_there_are_looked_for_once(
    new_retailer: Retailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance_of(new_retailer.settings) as instance:
        log = instance.event_log_storage
        assert isinstance(log, BatchedSqliteEventLog)
        asked = [log.has_table("asset_event_tags"), log.has_asset_key_col("last_materialization_timestamp")]
        assert asked == [True, True]
        assert not log.has_table("nowhere")
        assert not log.has_asset_key_col("later")
        with log.index_connection() as connection:
            connection.execute(text("CREATE TABLE nowhere (a INT)"))
            connection.execute(text("ALTER TABLE asset_keys ADD COLUMN later TEXT"))
        assert log.has_table("nowhere"), "a migration adds it"
        assert log.has_asset_key_col("later")
        monkeypatch.setattr(BatchedSqliteEventLog, "_open", None)
        assert log.has_asset_key_col("later")
        assert log.has_asset_key_col("last_materialization_timestamp")
        monkeypatch.setattr("retail_platform.orchestration.event_log._engine", None)
        assert log.has_table("nowhere")


def test_a_batch_that_fails_is_stored_event_by_event(
    new_retailer: Retailer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    with instance_of(new_retailer.settings) as instance:
        monkeypatch.setattr(instance.event_log_storage, "store_event_batch", broken)
        clean(instance)
        assert len(instance.get_materialized_partitions(dg.AssetKey("sales"))) == DAYS
    assert "Falling back" in capsys.readouterr().err
