"""The conditions under which science refreshes itself, evaluated tick by tick as the daemon does it.

Here: what is asked for after which event. The runs are real but make nothing: stand-ins with the keys of the assets.
Real assets under a real daemon are in browser/.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from retail_platform.orchestration.build import build_definitions
from retail_platform.settings import ForecastSettings, Settings

MASTERS = ("clean.calendar", "clean.items", "clean.stores")
REFRESHED = {
    "features.demand",
    "features.demand_history",
    "forecast.demand",
    "forecast.inventory_requirements",
    "monitoring.data_drift",
}
TRAINED = {"model.backtest_forecasts", "model.backtest_metrics", "model.registry"}
IN_ORDER = (
    "features.demand",
    "features.demand_history",
    "monitoring.data_drift",
    "model.backtest_forecasts",
    "model.backtest_metrics",
    "model.registry",
    "forecast.demand",
    "forecast.inventory_requirements",
)


class World:
    """An instance in which assets are made by hand, and the conditions' cursor."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.definitions = definitions
        self.graph = definitions.resolve_asset_graph()
        self.instance = instance
        self.cursor: dg.AssetDaemonCursor | None = None

    def tick(self, at: datetime | None = None) -> set[str]:
        """The tables asked for in this tick."""
        result = dg.evaluate_automation_conditions(
            defs=self.definitions, instance=self.instance, cursor=self.cursor, evaluation_time=at
        )
        self.cursor = result.cursor
        return {".".join(r.key.path) for r in result.results if result.get_num_requested(r.key)}

    def make(self, *tables: str, partition: str | None = None, failed_check: str | None = None) -> None:
        """One run that makes these tables and checks them."""
        stand_ins = [self._stand_in(dg.AssetKey(table.split(".")), failed_check) for table in tables]
        dg.materialize(stand_ins, instance=self.instance, partition_key=partition, raise_on_error=False)

    def _stand_in(self, key: dg.AssetKey, failed_check: str | None) -> dg.AssetsDefinition:
        checks = [self.graph.get(check) for check in self.graph.get(key).check_keys]

        @dg.asset(
            key=key,
            partitions_def=self.graph.get(key).partitions_def,
            check_specs=[dg.AssetCheckSpec(node.key.name, asset=key, blocking=node.blocking) for node in checks],
        )
        def made() -> dg.MaterializeResult:  # type: ignore[type-arg]
            results = [
                dg.AssetCheckResult(check_name=node.key.name, passed=node.key.name != failed_check) for node in checks
            ]
            return dg.MaterializeResult(check_results=results)

        return made


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(Settings())


@pytest.fixture
def world(definitions: dg.Definitions) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(definitions, instance)


@pytest.fixture(scope="module")
def up_to_date(definitions: dg.Definitions) -> Iterator[World]:
    """A retailer without the feeds of stock, prices, promotions, weather and economy, up to date. Tests copy it."""
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(definitions, instance)
        world.tick()
        world.make(*MASTERS)
        world.make("clean.sales", partition="2017-03-01")
        assert world.tick() == REFRESHED | TRAINED
        world.make(*IN_ORDER)
        assert world.tick() == set()
        yield world


@pytest.fixture
def current(up_to_date: World, world: World) -> World:
    """A copy of the retailer that is up to date: to make it takes longer than most of the tests."""
    for records in ("run_storage", "event_log_storage"):
        source, target = getattr(up_to_date.instance, records), getattr(world.instance, records)
        source._held_conn.connection.driver_connection.backup(target._held_conn.connection.driver_connection)
    world.cursor = up_to_date.cursor
    return world


def test_the_first_sales_ask_for_everything_though_most_feeds_and_days_are_missing(world: World) -> None:
    assert world.tick() == set()
    world.make(*MASTERS)
    assert world.tick() == set(), "masters alone can be forecast from nothing"
    world.make("clean.sales", partition="2017-03-01")
    assert world.tick() == REFRESHED | TRAINED
    assert world.tick() == set(), "what was asked for is not asked for again"


def test_nothing_is_asked_for_where_nothing_changed(current: World) -> None:
    assert [current.tick() for _ in range(3)] == [set()] * 3


@pytest.mark.parametrize("day", ["2017-03-02", "2017-02-01"], ids=["new day", "late day"])
def test_a_day_of_sales_refreshes_the_forecast_and_trains_no_model(current: World, day: str) -> None:
    current.make("clean.sales", partition=day)
    assert current.tick() == REFRESHED
    current.make(*(table for table in IN_ORDER if table in REFRESHED))
    assert current.tick() == set()
    assert current.tick() == set()


def test_many_days_at_once_are_one_request(current: World) -> None:
    for day in range(10, 20):
        current.make("clean.sales", partition=f"2017-01-{day}")
    assert current.tick() == REFRESHED
    assert current.tick() == set()


def test_a_failed_blocking_check_holds_back_what_follows_also_later_until_it_passes(current: World) -> None:
    current.make("clean.sales", partition="2017-03-02", failed_check="contract")
    assert current.tick() == set()
    current.make("clean.stores")
    assert current.tick() == set(), "other news must not carry the broken table along"
    assert current.tick() == set()
    current.make("clean.sales", partition="2017-03-02")
    assert current.tick() == REFRESHED


def test_a_failed_check_further_down_leaves_the_orders_alone(current: World) -> None:
    current.make("forecast.demand", failed_check="horizon_complete")
    assert current.tick() == set()


def test_a_check_that_only_warns_holds_nothing_back(current: World) -> None:
    current.make("model.registry", failed_check="beats_seasonal_naive")
    assert current.tick() == {"forecast.demand", "forecast.inventory_requirements"}


def test_sales_that_arrive_while_the_forecast_is_made_are_not_lost(current: World) -> None:
    current.make("clean.sales", partition="2017-03-02")
    assert current.tick() == REFRESHED
    assert current.tick() == set()
    current.make("clean.sales", partition="2017-03-03")
    current.make(*(table for table in IN_ORDER if table in REFRESHED))
    assert current.tick() == REFRESHED


def test_a_first_training_that_came_to_nothing_is_tried_again_with_new_data(world: World) -> None:
    world.tick()
    world.make(*MASTERS)
    world.make("clean.sales", partition="2017-03-01")
    assert world.tick() >= TRAINED
    world.make("features.demand", "features.demand_history")
    world.tick()
    assert world.tick() == set()
    world.make("clean.sales", partition="2017-03-02")
    assert world.tick() >= TRAINED


def test_a_new_model_is_followed_by_a_forecast_and_orders(current: World) -> None:
    current.make("model.registry")
    assert current.tick() == {"forecast.demand", "forecast.inventory_requirements"}


def test_a_person_who_puts_another_model_in_force_is_followed_by_a_forecast_and_orders(current: World) -> None:
    current.make("model.decisions")
    assert current.tick() == {"forecast.demand", "forecast.inventory_requirements"}
    assert current.tick() == set()


def test_stock_alone_refreshes_features_and_orders(current: World) -> None:
    current.make("clean.inventory", partition="2017-03-01")
    assert current.tick() == REFRESHED


def test_the_model_is_trained_again_with_the_first_data_of_a_month(current: World) -> None:
    year = datetime.now(UTC).year + 1
    eve, night, morning = (datetime(year, 5, 1, hour, 30, tzinfo=UTC) for hour in (1, 2, 3))
    current.tick(eve)
    current.make("clean.sales", partition="2017-03-02")
    assert current.tick(eve + timedelta(minutes=1)) == REFRESHED | TRAINED, "the first of many months has passed"
    current.make(*IN_ORDER)
    current.tick(eve + timedelta(minutes=2))
    current.make("clean.sales", partition="2017-03-03")
    assert current.tick(night) == REFRESHED
    current.make(*(table for table in IN_ORDER if table in REFRESHED))
    assert current.tick(night + timedelta(minutes=1)) == set()
    assert current.tick(morning) == set(), "there is nothing new to learn from yet"
    current.make("clean.sales", partition="2017-03-04")
    assert current.tick(morning + timedelta(minutes=1)) == REFRESHED | TRAINED
    current.make(*IN_ORDER)
    assert current.tick(morning + timedelta(minutes=2)) == set()


def test_shards_are_all_refreshed_after_a_day_of_sales(settings: Settings) -> None:
    sharded = settings.model_copy(update={"forecast": ForecastSettings(shards=2)})
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(build_definitions(sharded), instance)
        world.tick()
        world.make(*MASTERS)
        world.make("clean.sales", partition="2017-03-01")
        result = dg.evaluate_automation_conditions(defs=world.definitions, instance=world.instance, cursor=world.cursor)
    for table in ("features.demand", "model.registry", "forecast.demand", "forecast.inventory_requirements"):
        assert result.get_requested_partitions(dg.AssetKey(table.split("."))) == {"shard-1-of-2", "shard-2-of-2"}, table
