"""Sensors, tick by tick: what they ask for, and that a tick that is repeated asks for nothing twice."""

import os
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl
import pytest

from retail_platform.contracts import FEEDS, TABLES
from retail_platform.lakehouse import Append, Provenance
from retail_platform.orchestration import sensors
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.settings import ForecastSettings, IntakeSettings
from retail_platform_tests.simulated_retailer import Retailer, run_in_process


class Ticks:
    """One sensor of a retailer, with the cursor that Dagster would keep for it."""

    def __init__(self, sensor: dg.SensorDefinition, retailer: Retailer, instance: dg.DagsterInstance) -> None:
        self.sensor, self.retailer, self.instance = sensor, retailer, instance
        self.cursor: str | None = None

    def __call__(self) -> Sequence[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"settings": self.retailer.settings, "lakehouse": self.retailer.lake},
        )
        result: Any = self.sensor(context)
        if isinstance(result, dg.SkipReason):
            assert result.skip_message
            self.cursor = context.cursor
            return []
        self.cursor = result.cursor
        return list(result.run_requests or ())


def selected(request: dg.RunRequest) -> set[str]:
    return {".".join(key.path) for key in request.asset_selection or ()}


def days(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags[sensors.RANGE_START], request.tags[sensors.RANGE_END]


def sale(day: date, **changes: Any) -> dict[str, Any]:
    return {"business_date": day, "store_id": "S1", "item_id": "MILK", "quantity": 1, **changes}


def ingest(retailer: Retailer, *feeds: str) -> None:
    retailer.lake.prepare()
    for feed in feeds:
        assert not ingest_feed(retailer.lake, feed, "test").broken


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


DAY = date(2017, 3, 1)
MASTERS = {feed.clean_table for feed in FEEDS.values() if feed.date_column is None}


def clean_masters(retailer: Retailer, instance: dg.DagsterInstance) -> None:
    """Run what comes before any day is asked for."""
    keys = [dg.AssetKey(name.split(".")) for name in sorted(MASTERS)]
    assert run_in_process(retailer, instance, keys).success


class TestLandingFiles:
    def test_asks_for_the_feed_of_a_new_file_once_and_again_when_it_changes(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        tick = Ticks(sensors.landing_files, new_retailer, instance)
        assert tick() == []
        file = new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        (first,) = tick()
        assert selected(first) == {"raw.pos_sales"}
        assert tick() == []
        new_retailer.land("items", "items.csv", [{"item_id": "MILK"}])
        (second,) = tick()
        assert selected(second) == {"raw.items"}
        os.utime(file, (1, 1))
        (third,) = tick()
        assert selected(third) == {"raw.pos_sales"}
        assert len({first.run_key, second.run_key, third.run_key}) == 3
        file.unlink()
        assert tick() == []

    def test_names_a_request_by_the_files_so_that_a_lost_cursor_asks_for_nothing_twice(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        keys = [Ticks(sensors.landing_files, new_retailer, instance)()[0].run_key for _ in range(2)]
        assert keys[0] == keys[1]

    def test_several_feeds_are_one_run(self, new_retailer: Retailer, instance: dg.DagsterInstance) -> None:
        new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        new_retailer.land("items", "items.csv", [{"item_id": "MILK"}])
        (request,) = Ticks(sensors.landing_files, new_retailer, instance)()
        assert selected(request) == {"raw.pos_sales", "raw.items"}

    def test_a_file_that_was_just_written_to_is_asked_for_once_it_is_quiet(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        patient = new_retailer.with_settings(intake=IntakeSettings(quiet_seconds=3600))
        tick = Ticks(sensors.landing_files, patient, instance)
        old = patient.land("pos_sales", "old.csv", [sale(DAY)])
        os.utime(old, (1, 1))
        young = patient.land("pos_sales", "young.csv", [sale(DAY, item_id="SOUP")])
        assert len(tick()) == 1, "a file that still grows keeps no other back"
        young.write_text(young.read_text() + "\n")
        assert tick() == []
        assert len(tick()) == 1, "it did not change between two looks"
        assert tick() == []

    def test_asks_again_where_a_run_has_not_dealt_with_the_files(
        self, new_retailer: Retailer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sensors, "FIRST_PAUSE", timedelta(0))
        new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        tick = Ticks(sensors.landing_files, new_retailer, instance)
        keys = {tick()[0].run_key for _ in range(3)}
        assert len(keys) == 3
        ingest(new_retailer, "pos_sales")
        assert tick() == []

    def test_pauses_grow_between_requests_for_the_same_files(self) -> None:
        asked, at = sensors._Asked("files"), datetime(2026, 1, 1)
        pauses = []
        for _ in range(9):
            asked, before = asked.asked_at(at), at
            while not asked.is_due(at):
                at += timedelta(seconds=30)
            pauses.append((at - before).total_seconds() / 60)
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    def test_a_refused_file_is_not_asked_for_until_it_changes(
        self, new_retailer: Retailer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sensors, "FIRST_PAUSE", timedelta(0))
        file = new_retailer.settings.landing / "pos_sales" / "a.csv"
        file.write_text("store_id\nS1\n")
        tick = Ticks(sensors.landing_files, new_retailer, instance)
        assert len(tick()) == 1
        assert ingest_feed(new_retailer.lake, "pos_sales", "test").broken
        assert tick() == []
        assert Ticks(sensors.landing_files, new_retailer, instance)() == [], "nor after the cursor was lost"
        new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        assert len(tick()) == 1


class TestChangedDays:
    def test_waits_for_a_lake(self, without_a_lake: Retailer, instance: dg.DagsterInstance) -> None:
        assert Ticks(sensors.changed_days, without_a_lake, instance)() == []

    def test_asks_for_the_masters_alone_and_then_for_each_range_of_days_once(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        far = DAY + timedelta(days=sensors.LONGEST_GAP_DAYS + 5)
        new_retailer.land("pos_sales", "a.csv", [sale(DAY), sale(DAY + timedelta(days=2)), sale(far)])
        new_retailer.land("items", "items.csv", [{"item_id": "MILK"}])
        ingest(new_retailer, "pos_sales", "items")
        tick = Ticks(sensors.changed_days, new_retailer, instance)
        for masters in ({"clean.items", "clean.stores"}, MASTERS - {"clean.items", "clean.stores"}):
            (asked,) = tick()
            assert selected(asked) == masters
            assert run_in_process(new_retailer, instance, list(asked.asset_selection or ())).success
        first, second = tick()
        assert selected(first) == {"clean.sales"}
        assert days(first) == (str(DAY), str(DAY + timedelta(days=2)))
        assert selected(second) == {"clean.sales"}
        assert days(second) == (str(far), str(far))
        assert tick() == [], "nothing was written since"

    def test_feeds_that_touch_the_same_days_share_a_run(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        new_retailer.land(
            "inventory", "a.csv", [{"as_of_date": DAY, "store_id": "S1", "item_id": "MILK", "on_hand": 3}]
        )
        ingest(new_retailer, "pos_sales", "inventory")
        clean_masters(new_retailer, instance)
        (request,) = Ticks(sensors.changed_days, new_retailer, instance)()
        assert selected(request) >= {"clean.sales", "clean.inventory"}

    def test_keys_of_requests_are_stable_until_something_new_arrives(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        def keys() -> list[str | None]:
            return [request.run_key for request in Ticks(sensors.changed_days, new_retailer, instance)()]

        new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        ingest(new_retailer, "pos_sales")
        clean_masters(new_retailer, instance)
        before = keys()
        assert keys() == before
        new_retailer.land("pos_sales", "b.csv", [sale(DAY, item_id="SOUP")])
        ingest(new_retailer, "pos_sales")
        assert not set(keys()) & set(before)

    def test_waits_while_files_are_being_taken_in(self, new_retailer: Retailer, instance: dg.DagsterInstance) -> None:
        new_retailer.land("pos_sales", "a.csv", [sale(DAY)])
        ingest(new_retailer, "pos_sales")
        tick = Ticks(sensors.changed_days, new_retailer, instance)

        @dg.asset(key=["raw", "items"])
        def items() -> None:
            assert tick() == []

        job = dg.Definitions(assets=[items]).resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=[items.key]).success
        assert len(tick()) == 1

    def test_rows_rejected_for_an_unknown_item_are_judged_again_when_the_item_arrives(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        def run_all() -> None:
            tick = Ticks(sensors.changed_days, new_retailer, instance)
            while asked := tick():
                for request in asked:
                    keys = list(request.asset_selection or ())
                    assert run_in_process(new_retailer, instance, keys, request.tags).success

        new_retailer.land("items", "items.csv", [{"item_id": "MILK"}])
        new_retailer.land("pos_sales", "a.csv", [sale(DAY), sale(DAY, item_id="SOUP")])
        ingest(new_retailer, "pos_sales", "items")
        run_all()
        assert new_retailer.counts()["quarantine.rejected_rows"] == 1
        new_retailer.land("items", "more.csv", [{"item_id": "SOUP"}])
        ingest(new_retailer, "items")
        run_all()
        counts = new_retailer.counts()
        assert counts["quarantine.rejected_rows"] == 0
        assert counts["clean.sales"] == 2

    @pytest.mark.parametrize(
        ("gaps", "expected"),
        [
            ([], []),
            ([0], [(0, 0)]),
            ([0, 1, 2], [(0, 2)]),
            ([2, 0, 2], [(0, 2)]),
            ([0, 7], [(0, 7)]),
            ([0, 8], [(0, 0), (8, 8)]),
            (range(0, 200, 10), [(day, day) for day in range(0, 200, 10)]),
            (range(0, 210, 10), [(0, 200)]),
        ],
    )
    def test_days_become_few_ranges(self, gaps: Sequence[int], expected: list[tuple[int, int]]) -> None:
        found = sensors.ranges(DAY + timedelta(days=gap) for gap in gaps)
        assert [((first - DAY).days, (last - DAY).days) for first, last in found] == expected


class TestDriftHolds:
    @staticmethod
    def measure(retailer: Retailer, day: int, *, drifted: bool) -> None:
        at, end = datetime(2026, 1, 1) + timedelta(days=day), DAY + timedelta(days=day)
        row: dict[str, Any] = {
            "run_id": f"run-{day}-{drifted}",
            "table_name": "features.demand",
            "column_name": "*",
            "metric": "share_of_drifted_columns",
            "value": 0.9 if drifted else 0.1,
            "threshold": 0.5,
            "drifted": drifted,
            "reference_start": end,
            "reference_end": end,
            "current_start": end,
            "current_end": end,
            "note": None,
            "measured_at": at,
        }
        table = TABLES["monitoring.data_drift"]
        frame = pl.DataFrame([row], schema=table.polars_schema)
        retailer.lake.commit([Append(table, frame)], Provenance(table.name, str(row["run_id"]), "1", ""))

    def test_asks_once_drift_has_held_and_not_again_for_the_same_measurement(
        self, new_retailer: Retailer, instance: dg.DagsterInstance
    ) -> None:
        tick = Ticks(sensors.drift_holds, new_retailer, instance)
        assert tick() == []
        assert tick() == []
        self.measure(new_retailer, 1, drifted=True)
        assert tick() == [], "one measurement is not enough"
        self.measure(new_retailer, 2, drifted=True)
        (request,) = tick()
        assert request.partition_key is None
        assert tick() == []
        self.measure(new_retailer, 3, drifted=False)
        assert tick() == []

    def test_asks_for_every_shard(self, new_retailer: Retailer, instance: dg.DagsterInstance) -> None:
        sharded = new_retailer.with_settings(forecast=ForecastSettings(shards=2))
        sharded.lake.prepare()
        for day in (1, 2):
            self.measure(sharded, day, drifted=True)
        requests = Ticks(sensors.drift_holds, sharded, instance)()
        assert [request.partition_key for request in requests] == ["shard-1-of-2", "shard-2-of-2"]
        assert len({request.run_key for request in requests}) == 2
