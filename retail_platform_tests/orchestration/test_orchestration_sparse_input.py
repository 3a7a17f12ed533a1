"""Little data: the way to a published forecast when feeds are missing, history is short, or no model beats naive."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import polars as pl

from retail_platform.orchestration.summary import summary
from retail_platform_tests.simulated_retailer import FIRST_DAY, Retailer

WEEK = (4, 5, 6, 7, 9, 14, 11)
ITEMS = {"MILK": 1, "SOUP": 2}


def daily_sales(days: int, units: Callable[[int], int] = lambda day: WEEK[day % 7]) -> list[dict[str, Any]]:
    """Daily totals of two stores; the second item sells a multiple of the first."""
    return [
        {
            "business_date": FIRST_DAY + timedelta(days=day),
            "store_id": store,
            "item_id": item,
            "quantity": units(day) * factor,
            "sales_amount": 2.0 * units(day) * factor,
        }
        for day in range(days)
        for store in ("S1", "S2")
        for item, factor in ITEMS.items()
    ]


def series(frame: pl.DataFrame) -> set[tuple[Any, ...]]:
    return set(frame.select("store_id", "item_id").iter_rows())


EVERY_SERIES = {(store, item) for store in ("S1", "S2") for item in ITEMS}


def assert_naive_was_published(retailer: Retailer, *words: str) -> None:
    forecast, alerts = retailer.lake.read("forecast.demand"), retailer.lake.read("monitoring.alerts")
    assert series(forecast) == EVERY_SERIES
    assert set(forecast["model"]) == set(forecast["model_version"]) == {"seasonal_naive"}
    (alert,) = alerts.to_dicts()
    assert alert["severity"] == "warning"
    assert alert["subject"].startswith("forecast.demand")
    assert [word for word in words if word not in alert["message"]] == []
    assert retailer.check_passed("forecast.demand", "published_model_beats_naive")
    assert retailer.check_passed("forecast.demand", "horizon_complete")


def assert_nothing_is_left_to_do(retailer: Retailer) -> None:
    before = retailer.counts()
    assert [step.name for step in retailer.bring_up_to_date()] == ["take in landing files"]
    assert retailer.counts() == before


def missing_of(retailer: Retailer, tables: Iterable[str]) -> dict[str, str]:
    return {table: str(retailer.metadata(table).get("missing", "")) for table in tables}


def test_sales_alone_that_repeat_weekly_get_the_naive_forecast_that_no_model_beats(new_retailer: Retailer) -> None:
    new_retailer.land("pos_sales", "sales.csv", daily_sales(130))
    new_retailer.bring_up_to_date()

    (row,) = new_retailer.lake.read("model.registry").to_dicts()
    assert row["stage"] == "rejected"
    assert row["naive_wape"] == 0
    assert_naive_was_published(new_retailer, "does not beat seasonal naive")
    assert not new_retailer.check_passed("model.registry", "beats_seasonal_naive")

    forecast = new_retailer.lake.read("forecast.demand").sort("store_id", "item_id", "date")
    expected = [float(WEEK[day % 7]) * factor for factor in ITEMS.values() for day in range(130, 158)] * 2
    assert forecast["mean"].to_list() == expected

    orders = new_retailer.lake.read("forecast.inventory_requirements")
    assert series(orders) == EVERY_SERIES
    assert orders["order_quantity"].null_count() == orders.height
    missing = missing_of(
        new_retailer, ["raw.items", "clean.items", "features.demand", "forecast.inventory_requirements"]
    )
    assert "no file in" in missing["raw.items"]
    assert "no rows of items" in missing["clean.items"]
    assert missing["features.demand"] == (
        "computed without items, stores, prices, promotions, weather, economic_indicators, inventory"
    )
    assert "no stock is known" in missing["forecast.inventory_requirements"]
    assert ("better than seasonal naive by", "nothing: it makes no error") in summary(new_retailer.lake)
    assert_nothing_is_left_to_do(new_retailer)


def test_a_history_too_short_for_a_backtest_gets_the_naive_forecast(new_retailer: Retailer) -> None:
    new_retailer.land("pos_sales", "sales.csv", daily_sales(20))
    new_retailer.bring_up_to_date()

    assert new_retailer.lake.read("model.registry").is_empty()
    assert_naive_was_published(new_retailer, "no model has been trained")
    missing = missing_of(new_retailer, ["model.backtest_metrics", "model.registry", "monitoring.data_drift"])
    assert "20 known days" in missing["model.backtest_metrics"]
    assert "none is trained" in missing["model.registry"]
    assert "too short" in missing["monitoring.data_drift"]
    assert not list(new_retailer.settings.models.glob("*"))
    assert_nothing_is_left_to_do(new_retailer)
