"""The demand panel: which series it holds, what was sold of them and what was known of each day."""

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.features.demand import DemandPanel, build_demand_panel
from retail_platform.features.shards import shard_names, shard_of
from retail_platform.settings import ForecastSettings

START = date(2017, 3, 1)
LAST = date(2017, 3, 31)


def day(number: int) -> date:
    """The number-th day of the sales, counted from 1."""
    return START + timedelta(days=number - 1)


def sales(*lines: tuple[date, str, str, float, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        lines,
        schema={
            "business_date": pl.Date,
            "store_id": pl.String,
            "item_id": pl.String,
            "quantity": pl.Float64,
            "sales_amount": pl.Float64,
        },
        orient="row",
    )


ITEMS = pl.DataFrame(
    {
        "item_id": ["apple", "pear", "soap", "mystery"],
        "category": ["FRUIT", "FRUIT", "SOAP", None],
        "department": ["FOOD", "FOOD", "CARE", None],
    }
)
STORES = pl.DataFrame(
    {"store_id": ["S1", "S2", "S3"], "region": ["CA", "TX", None], "closed_on": [None, None, day(20)]},
    schema_overrides={"closed_on": pl.Date},
)
EVERY_DAY = sales(*((day(number), "S1", "apple", 2.0, 3.0) for number in range(1, 32)))


def build(lines: pl.DataFrame, *, settings: dict[str, Any] | None = None, **tables: Any) -> DemandPanel:
    chosen = ForecastSettings(**{"minimum_selling_days": 1, "horizon_days": 7, **(settings or {})})
    return build_demand_panel(lines, ITEMS, STORES, last_date=LAST, settings=chosen, **tables)


def on(panel: DemandPanel, when: date) -> dict[str, Any]:
    return panel.frame.row(by_predicate=pl.col("date") == when, named=True)


def test_a_series_is_dense_from_its_first_sale_to_the_end_of_the_horizon() -> None:
    panel = build(sales((day(3), "S1", "apple", 2, 4), (day(9), "S1", "apple", 1, 2)))
    frame = TABLES["features.demand"].validate(panel.frame)
    assert frame["date"].to_list() == [day(number) for number in range(3, 31 + 7 + 1)]
    assert frame["units"].to_list() == [2.0, 0, 0, 0, 0, 0, 1.0, *[0.0] * 22, *[None] * 7]


def test_days_that_a_late_store_has_not_delivered_are_unknown_and_not_zero() -> None:
    late = pl.DataFrame({"store_id": ["S2"], "known_until": [day(29)]})
    lines = pl.concat(
        [EVERY_DAY, EVERY_DAY.filter(pl.col("business_date") <= day(29)).with_columns(store_id=pl.lit("S2"))]
    )
    panel = build(lines, late_stores=late).frame.filter(pl.col("date") <= LAST)
    assert panel.filter(pl.col("store_id") == "S1")["units"].to_list() == [2.0] * 31
    assert panel.filter(pl.col("store_id") == "S2")["units"].to_list() == [2.0] * 29 + [None] * 2


def test_returns_are_netted_and_a_day_of_more_returns_than_sales_counts_as_zero() -> None:
    panel = build(
        sales((day(1), "S1", "apple", 5, 5), (day(1), "S1", "apple", -2, -2), (day(2), "S1", "apple", -3, -3))
    )
    assert panel.frame["units"].to_list()[:2] == [3.0, 0.0]


def test_sales_after_the_last_known_day_are_not_read() -> None:
    later = sales((LAST + timedelta(days=1), "S1", "apple", 9, 9))
    assert build(pl.concat([EVERY_DAY, later])).frame.equals(build(EVERY_DAY).frame)


def test_every_candidate_is_counted_once_with_the_reason_why_it_is_left_out() -> None:
    lines = sales(
        (day(30), "S1", "apple", 1, 1),
        (day(31), "S1", "apple", 1, 1),
        (day(30), "S1", "pear", 1, 1),
        (day(31), "S1", "soap", 1, 1),
        (day(31), "S1", "mystery", 4, 1),
        (day(31), "S1", "unknown", 8, 1),
        (day(1), "S3", "apple", 1, 1),
        (day(2), "S3", "apple", 1, 1),
    )
    settings = {"minimum_selling_days": 2, "item_level": "item", "excluded_categories": ("SOAP",)}
    panel = build(lines, settings=settings)
    reasons = {(row["store_id"], row["item_id"]): row["reason"] for row in panel.series.iter_rows(named=True)}
    assert reasons == {
        ("S1", "apple"): None,
        ("S1", "mystery"): "sold on 1 of the last 182 days, 2 are asked for",
        ("S1", "pear"): "sold on 1 of the last 182 days, 2 are asked for",
        ("S1", "soap"): "category SOAP is excluded by the settings",
        ("S1", "unknown"): "the item master does not know the item",
        ("S3", "apple"): "the store closed on 2017-03-20",
    }
    assert panel.series["units"].sum() == lines["quantity"].sum()
    assert panel.frame["item_id"].unique().to_list() == ["apple"]


def test_a_series_at_rest_is_forecast_where_a_price_is_announced_unless_volume_is_asked_for() -> None:
    lines = sales((date(2016, 1, 1), "S1", "pear", 1, 1), *((day(n), "S1", "apple", 1, 1) for n in (30, 31)))
    prices = pl.DataFrame(
        {
            "store_id": "S1",
            "item_id": "pear",
            "valid_from": date(2016, 1, 1),
            "valid_to": LAST + timedelta(days=5),
            "price": 1.0,
        }
    )
    ended = prices.with_columns(valid_to=pl.lit(LAST))
    assert "pear" in build(lines, prices=prices).frame["item_id"]
    assert "pear" not in build(lines, prices=ended).frame["item_id"]
    assert "pear" not in build(lines, settings={"minimum_selling_days": 2}, prices=prices).frame["item_id"]


@pytest.mark.parametrize("level", ["category", "department"])
def test_at_a_higher_level_a_node_sells_what_its_items_sell_and_items_without_one_drop_out(level: str) -> None:
    lines = sales((day(1), "S1", "apple", 2, 2), (day(1), "S1", "pear", 3, 3), (day(1), "S1", "mystery", 5, 5))
    panel = build(lines, settings={"item_level": level})
    node = {"category": "FRUIT", "department": "FOOD"}[level]
    assert panel.frame["item_id"].unique().to_list() == [node]
    assert on(panel, day(1))["units"] == 5
    assert panel.series.filter(pl.col("reason").is_not_null()).select("item_id", "reason", "units").rows() == [
        ("mystery", f"the item master names no {level} for the item", 5.0)
    ]


def test_excluded_categories_do_not_count_towards_their_department() -> None:
    lines = sales((day(1), "S1", "apple", 2, 2), (day(1), "S1", "soap", 3, 3))
    panel = build(lines, settings={"item_level": "department", "excluded_categories": ("SOAP",)})
    assert panel.frame["item_id"].unique().to_list() == ["FOOD"]
    assert panel.series.filter(pl.col("reason").is_not_null())["item_id"].to_list() == ["SOAP"]


def prices(*periods: tuple[int, int | None, float]) -> pl.DataFrame:
    return pl.DataFrame(
        [("S1", "apple", day(first), day(last) if last else None, price) for first, last, price in periods],
        schema={
            "store_id": pl.String,
            "item_id": pl.String,
            "valid_from": pl.Date,
            "valid_to": pl.Date,
            "price": pl.Float64,
        },
        orient="row",
    )


def test_the_price_that_began_last_holds_and_a_gap_between_prices_means_not_listed() -> None:
    panel = build(EVERY_DAY, prices=prices((1, 20, 3.0), (5, 6, 2.0), (23, 60, 4.0)))
    frame = panel.frame.filter(pl.col("date") <= day(24))
    assert frame["price"].to_list() == [3.0] * 4 + [2.0] * 2 + [3.0] * 14 + [None] * 2 + [4.0] * 2
    assert frame.filter(~pl.col("listed"))["date"].to_list() == [day(21), day(22)]
    assert frame["price_announced"].to_list() == frame["listed"].to_list()


def test_an_open_price_holds_until_the_next_one() -> None:
    panel = build(EVERY_DAY, prices=prices((1, None, 3.0), (10, None, 4.0)))
    assert panel.frame["price"].to_list() == [3.0] * 9 + [4.0] * (31 - 9 + 7)


def test_prices_that_hold_on_the_last_day_of_the_feed_hold_on() -> None:
    panel = build(EVERY_DAY, prices=prices((1, 31, 3.0)))
    assert panel.frame["listed"].all()
    assert set(panel.frame["price"]) == {3.0}


def test_without_a_price_feed_the_price_is_what_was_paid_on_earlier_days() -> None:
    lines = sales((day(1), "S1", "apple", 2, 4.0), (day(2), "S1", "apple", 1, 5.0), (day(31), "S1", "apple", 1, 9.0))
    frame = build(lines).frame
    assert frame["price"].to_list()[:4] == [None, 2.0, 3.0, 3.0]
    assert frame["price"].to_list()[-7:] == [9.0] * 7
    assert not frame["price_announced"].any()
    assert frame["listed"].all()


def test_sales_without_amounts_have_no_price() -> None:
    assert build(EVERY_DAY.with_columns(sales_amount=pl.lit(None, pl.Float64))).frame["price"].null_count() == 38


def test_promotions_are_shares_of_the_items_of_the_node() -> None:
    promotions = pl.DataFrame(
        {
            "promotion_id": ["a", "a2", "b"],
            "store_id": ["S1", "S1", "S2"],
            "item_id": ["apple", "apple", "pear"],
            "start_date": [day(2), day(2), day(2)],
            "end_date": [day(3), day(3), day(3)],
            "promotion_type": ["mailer", "display", "mailer"],
            "discount_share": [0.2, None, 0.5],
        }
    )
    item = build(EVERY_DAY, promotions=promotions)
    category = build(EVERY_DAY, promotions=promotions, settings={"item_level": "category"})
    assert [on(item, day(n))["on_promotion"] for n in (1, 2, 3, 4)] == [0, 1, 1, 0]
    assert on(item, day(2))["promotion_depth"] == pytest.approx(0.2)
    assert on(category, day(2))["on_promotion"] == pytest.approx(0.5)
    assert on(category, day(2))["promotion_depth"] == pytest.approx(0.1)


@pytest.mark.parametrize(("level", "named"), [("item", "apple"), ("category", "FRUIT"), ("category", "apple")])
def test_a_day_is_out_of_stock_when_none_was_left_and_nothing_sold(level: str, named: str) -> None:
    lines = EVERY_DAY.filter(pl.col("business_date") != day(2))
    inventory = pl.DataFrame(
        {"as_of_date": [day(1), day(2), day(3)], "store_id": "S1", "item_id": named, "on_hand": [0.0, -1.0, 5.0]}
    )
    panel = build(lines, inventory=inventory, settings={"item_level": level})
    assert [on(panel, day(n))["in_stock"] for n in (1, 2, 3, 4)] == [True, False, True, True]


def test_a_day_that_ran_out_tells_its_demand_only_where_it_sold_as_much_as_usual() -> None:
    units = {1: 4.0, 2: 6.0, 3: 3.0, 4: 5.0, 5: 9.0, 6: 4.0}
    lines = sales(*((day(n), "S1", "apple", quantity, 1.0) for n, quantity in units.items()))
    left = {1: 2.0, 2: 1.0, 3: 0.0, 4: 0.0, 5: 0.0, 6: 1.0}
    inventory = pl.DataFrame(
        {"as_of_date": [day(n) for n in left], "store_id": "S1", "item_id": "apple", "on_hand": list(left.values())}
    )
    panel = build(lines, inventory=inventory)
    # Days 1 and 2 ended with stock and sold 5 in the mean; of the others day 3 sold less.
    assert [on(panel, day(n))["in_stock"] for n in units] == [True, True, False, True, True, True]


def test_an_item_of_which_no_stock_was_ever_counted_tells_its_demand_by_its_sales() -> None:
    inventory = pl.DataFrame(
        {"as_of_date": [day(n) for n in (1, 2, 3, 4)], "store_id": "S1", "item_id": "apple", "on_hand": 0.0}
    )
    panel = build(EVERY_DAY, inventory=inventory)
    assert all(on(panel, day(n))["in_stock"] for n in (1, 2, 3, 4))


def test_the_regions_own_event_comes_first_and_paydays_are_told_apart() -> None:
    calendar = pl.DataFrame(
        [
            (day(1), "*", "Big Game", "sporting"),
            (day(1), "*", "Founders Day", "National"),
            (day(2), "CA", "Harvest", "cultural"),
            (day(2), "*", "Founders Day", "national"),
            (day(3), "TX", "Rodeo", "cultural"),
            (day(4), "CA", "SNAP", "payday"),
        ],
        schema=["date", "region", "event_name", "event_type"],
        orient="row",
    )
    panel = build(EVERY_DAY, calendar=calendar)
    assert [on(panel, day(n))["event_name"] for n in (1, 2, 3, 4)] == ["Founders Day", "Harvest", None, None]
    assert [on(panel, day(n))["is_payday"] for n in (1, 2, 3, 4)] == [False, False, False, True]


def test_a_store_without_region_has_the_general_events_and_no_weather() -> None:
    calendar = pl.DataFrame({"date": [day(1)], "region": ["*"], "event_name": ["Fair"], "event_type": ["cultural"]})
    stores = STORES.with_columns(region=pl.lit(None, pl.String))
    settings = ForecastSettings(horizon_days=1)
    panel = build_demand_panel(EVERY_DAY, ITEMS, stores, last_date=LAST, settings=settings, calendar=calendar)
    assert on(panel, day(1))["event_name"] == "Fair"


def test_an_economic_figure_counts_from_its_publication_and_a_late_revision_of_an_old_period_does_not() -> None:
    indicators = pl.DataFrame(
        [
            ("consumer_price_index", date(2017, 1, 1), 100.0, day(2)),
            ("consumer_price_index", date(2017, 2, 1), 101.0, day(4)),
            ("consumer_price_index", date(2017, 1, 1), 99.0, day(5)),
            ("consumer_price_index", date(2017, 2, 1), 102.0, day(6)),
            ("unemployment_rate", date(2017, 1, 1), 4.0, day(1)),
        ],
        schema=["indicator", "period_start", "value", "published_on"],
        orient="row",
    )
    panel = build(EVERY_DAY, economic_indicators=indicators)
    assert [on(panel, day(n))["consumer_prices"] for n in range(1, 8)] == [None, 100, 100, 101, 101, 102, 102]
    assert set(panel.frame["unemployment"]) == {4.0}


def test_a_shard_holds_exactly_its_stores_and_the_shards_together_all() -> None:
    lines = pl.concat([EVERY_DAY, EVERY_DAY.with_columns(store_id=pl.lit("S2"))])
    parts = [build(lines, settings={"shards": 3}, shard=name).frame for name in shard_names(3)]
    whole = build(lines).frame
    assert pl.concat(parts).drop("shard").sort("store_id", "date").equals(whole.drop("shard"))


def test_the_shard_of_a_store_depends_on_nothing_but_its_name() -> None:
    assert shard_of(["S1", "S2"], 1) == {"S1": "all", "S2": "all"}
    assert shard_of(["S1"], 4)["S1"] == shard_of(["S0", "S1", "S2"], 4)["S1"] == "shard-3-of-4"


def test_nothing_sold_gives_an_empty_panel_of_the_contract_whatever_else_is_known() -> None:
    period = {"store_id": ["S1"], "item_id": ["apple"], "start_date": [day(1)], "end_date": [day(2)]}
    tables = {
        "prices": prices((1, None, 2.0)),
        "promotions": pl.DataFrame({**period, "discount_share": [0.1]}),
        "calendar": pl.DataFrame({"date": [day(1)], "region": ["*"], "event_name": ["Fair"], "event_type": ["local"]}),
        "weather": pl.DataFrame(
            {
                "date": [day(1)] * 3,
                "region": ["CA"] * 3,
                "temperature_mean": [9.0, 5.0, 7.0],
                "precipitation": [0.0, 1.0, 1.0],
                # The latest revision counts, whatever the order of the rows.
                "published_on": [day(2), None, day(1)],
            }
        ),
        "economic_indicators": pl.DataFrame(
            {
                "indicator": ["unemployment_rate"],
                "period_start": [day(1)],
                "value": [4.0],
                "published_on": [day(2)],
            }
        ),
        "inventory": pl.DataFrame({"as_of_date": [day(1)], "store_id": "S1", "item_id": "apple", "on_hand": [1.0]}),
    }
    for given in ({}, tables, {name: table.clear() for name, table in tables.items()}):
        assert TABLES["features.demand"].validate(build(sales(), **given).frame).is_empty()
        assert TABLES["features.demand"].validate(build(EVERY_DAY, **given).frame).height == 31 + 7
