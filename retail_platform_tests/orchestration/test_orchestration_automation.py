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

    def make_all(self) -> None:
        """A retailer without the feeds of stock, prices, promotions, weather and economy, up to date."""
        self.tick()
        self.make(*MASTERS)
        self.make("clean.sales", partition="2017-03-01")
        assert self.tick() == REFRESHED | TRAINED
        self.make(*IN_ORDER)
        assert self.tick() == set()


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions(Settings())


@pytest.fixture
def world(definitions: dg.Definitions) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(definitions, instance)


def test_the_first_sales_ask_for_everything_though_most_feeds_and_days_are_missing(world: World) -> None:
    assert world.tick() == set()
    world.make(*MASTERS)
    assert world.tick() == set(), "masters alone can be forecast from nothing"
    world.make("clean.sales", partition="2017-03-01")
    assert world.tick() == REFRESHED | TRAINED
    assert world.tick() == set(), "what was asked for is not asked for again"


def test_nothing_is_asked_for_where_nothing_changed(world: World) -> None:
    world.make_all()
    assert [world.tick() for _ in range(3)] == [set()] * 3


@pytest.mark.parametrize("day", ["2017-03-02", "2017-02-01"], ids=["new day", "late day"])
def test_a_day_of_sales_refreshes_the_forecast_and_trains_no_model(world: World, day: str) -> None:
    world.make_all()
    world.make("clean.sales", partition=day)
    assert world.tick() == REFRESHED
    world.make(*(table for table in IN_ORDER if table in REFRESHED))
    assert world.tick() == set()
    assert world.tick() == set()


def test_many_days_at_once_are_one_request(world: World) -> None:
    world.make_all()
    for day in range(10, 20):
        world.make("clean.sales", partition=f"2017-01-{day}")
    assert world.tick() == REFRESHED
    assert world.tick() == set()


def test_a_failed_blocking_check_holds_back_what_follows_also_later_until_it_passes(world: World) -> None:
    world.make_all()
    world.make("clean.sales", partition="2017-03-02", failed_check="contract")
    assert world.tick() == set()
    world.make("clean.stores")
    assert world.tick() == set(), "other news must not carry the broken table along"
    assert world.tick() == set()
    world.make("clean.sales", partition="2017-03-02")
    assert world.tick() == REFRESHED


def test_a_failed_check_further_down_leaves_the_orders_alone(world: World) -> None:
    world.make_all()
    world.make("forecast.demand", failed_check="horizon_complete")
    assert world.tick() == set()


def test_a_check_that_only_warns_holds_nothing_back(world: World) -> None:
    world.make_all()
    world.make("model.registry", failed_check="beats_seasonal_naive")
    assert world.tick() == {"forecast.demand", "forecast.inventory_requirements"}


def test_sales_that_arrive_while_the_forecast_is_made_are_not_lost(world: World) -> None:
    world.make_all()
    world.make("clean.sales", partition="2017-03-02")
    assert world.tick() == REFRESHED
    assert world.tick() == set()
    world.make("clean.sales", partition="2017-03-03")
    world.make(*(table for table in IN_ORDER if table in REFRESHED))
    assert world.tick() == REFRESHED


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


def test_a_new_model_is_followed_by_a_forecast_and_orders(world: World) -> None:
    world.make_all()
    world.make("model.registry")
    assert world.tick() == {"forecast.demand", "forecast.inventory_requirements"}


def test_a_person_who_puts_another_model_in_force_is_followed_by_a_forecast_and_orders(world: World) -> None:
    world.make_all()
    world.make("model.decisions")
    assert world.tick() == {"forecast.demand", "forecast.inventory_requirements"}
    assert world.tick() == set()


def test_stock_alone_refreshes_features_and_orders(world: World) -> None:
    world.make_all()
    world.make("clean.inventory", partition="2017-03-01")
    assert world.tick() == REFRESHED


def test_the_model_is_trained_again_with_the_first_data_of_a_month(world: World) -> None:
    world.make_all()
    year = datetime.now(UTC).year + 1
    eve, night, morning = (datetime(year, 5, 1, hour, 30, tzinfo=UTC) for hour in (1, 2, 3))
    world.tick(eve)
    world.make("clean.sales", partition="2017-03-02")
    assert world.tick(eve + timedelta(minutes=1)) == REFRESHED | TRAINED, "the first of many months has passed"
    world.make(*IN_ORDER)
    world.tick(eve + timedelta(minutes=2))
    world.make("clean.sales", partition="2017-03-03")
    assert world.tick(night) == REFRESHED
    world.make(*(table for table in IN_ORDER if table in REFRESHED))
    assert world.tick(night + timedelta(minutes=1)) == set()
    assert world.tick(morning) == set(), "there is nothing new to learn from yet"
    world.make("clean.sales", partition="2017-03-04")
    assert world.tick(morning + timedelta(minutes=1)) == REFRESHED | TRAINED
    world.make(*IN_ORDER)
    assert world.tick(morning + timedelta(minutes=2)) == set()


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
