"""A file is dropped, and nobody does anything more: sensors and conditions tick, and what they ask for is run."""

from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl

from retail_platform.orchestration import sensors
from retail_platform.orchestration.build import build_definitions
from retail_platform.orchestration.runner import instance_of
from retail_platform_tests.simulated_retailer import SIMULATION, Retailer, run_in_process

MOST_TICKS = 10


class Daemon:
    """What Dagster's daemon does, in this process: ticks, and runs for what they asked for."""

    def __init__(self, retailer: Retailer, instance: dg.DagsterInstance) -> None:
        self.retailer, self.instance = retailer, instance
        self.definitions = build_definitions(retailer.settings)
        self.cursors: dict[str, Any] = {}

    def requests(self, sensor: dg.SensorDefinition) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor.name),
            resources={"settings": self.retailer.settings, "lakehouse": self.retailer.lake},
        )
        result: Any = sensor(context)
        if isinstance(result, dg.SkipReason):
            return []
        self.cursors[sensor.name] = result.cursor
        return list(result.run_requests or ())

    def automation(self) -> list[dg.RunRequest]:
        result = dg.evaluate_automation_conditions(
            defs=self.definitions, instance=self.instance, cursor=self.cursors.get("automation")
        )
        self.cursors["automation"] = result.cursor
        keys = [r.key for r in result.results if isinstance(r.key, dg.AssetKey) and result.get_num_requested(r.key)]
        return [dg.RunRequest(asset_selection=keys)] if keys else []

    def tick(self) -> list[dg.RunRequest]:
        asked = [*self.requests(sensors.landing_files), *self.requests(sensors.changed_days), *self.automation()]
        return [*asked, *self.requests(sensors.drift_holds)]

    def run_until_quiet(self) -> list[set[str]]:
        """The tables of each run, in order."""
        runs: list[set[str]] = []
        for _ in range(MOST_TICKS):
            asked = self.tick()
            if not asked:
                return runs
            for request in asked:
                keys = list(request.asset_selection or ())
                assert run_in_process(self.retailer, self.instance, keys, request.tags).success
                runs.append({".".join(key.path) for key in keys})
        raise AssertionError(f"still busy after {MOST_TICKS} ticks: {runs}")


def test_a_dropped_file_moves_the_forecast_to_the_new_day_without_a_new_model(retailer: Retailer) -> None:
    last = SIMULATION.last_date
    new_day, late_day = last + timedelta(days=1), last - timedelta(days=30)
    known = retailer.lake.query("SELECT DISTINCT store_id, item_id FROM features.demand").sort("store_id", "item_id")
    units = retailer.lake.read("features.demand").filter(date=late_day, **known.row(0, named=True))["units"].item()
    before = retailer.lake.read("forecast.demand")

    with instance_of(retailer.settings) as instance:
        daemon = Daemon(retailer, instance)
        daemon.tick()  # the first look of a daemon that was just started
        assert daemon.tick() == []
        sale = {"quantity": 7, "sales_amount": 21.0, "transaction_id": "late"}
        rows = [{"business_date": new_day, **row, **sale} for row in known.iter_rows(named=True)]
        retailer.land("pos_sales", "new.csv", [*rows, {**rows[0], "business_date": late_day}])
        runs = daemon.run_until_quiet()

    assert runs == [
        {"raw.pos_sales"},
        {"clean.sales"},
        {"clean.sales"},
        {
            "features.demand",
            "features.demand_history",
            "forecast.demand",
            "forecast.inventory_requirements",
            "monitoring.data_drift",
        },
    ]
    forecast = retailer.lake.read("forecast.demand")
    assert set(forecast["forecast_origin"]) == {last, new_day}
    assert forecast.filter(forecast_origin=last).equals(before.select(forecast.columns))
    assert forecast.filter(forecast_origin=new_day).select(pl.struct("store_id", "item_id").n_unique()).item() == (
        known.height
    )
    assert retailer.lake.read("model.registry").height == 1
    panel = retailer.lake.read("features.demand")
    assert panel.filter(date=late_day, **known.row(0, named=True))["units"].item() == units + 7
    assert set(retailer.lake.read("forecast.inventory_requirements")["forecast_origin"]) == {last, new_day}
