"""Laws that hold for a simulated retailer of any size and temper."""

from datetime import date

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.sources.simulator import SimulationParameters, simulate

PARAMETERS = st.builds(
    SimulationParameters,
    stores=st.integers(1, 3),
    items=st.integers(1, 8),
    days=st.integers(1, 70),
    start_date=st.dates(date(2011, 1, 1), date(2024, 12, 31)),
    seed=st.integers(0, 2**32),
    mean_daily_units=st.floats(0, 20),
    overdispersion=st.floats(0, 2),
    share_promoted=st.floats(0, 1),
    share_new=st.floats(0, 0.5),
    share_ending=st.floats(0, 0.5),
    return_rate=st.floats(0, 1),
    receipts=st.booleans(),
    review_period_days=st.integers(1, 7),
    planned_days=st.integers(0, 28),
)


@settings(max_examples=40, deadline=None)
@given(PARAMETERS)
def test_stock_balances_and_nothing_is_sold_that_is_not_there(parameters: SimulationParameters) -> None:
    simulation = simulate(parameters)
    truth = simulation.truth.sort("store_id", "item_id", "date")
    before = pl.col("on_hand") + pl.col("sales") - pl.col("arrivals")
    follows = (before == pl.col("on_hand").shift(1)).over("store_id", "item_id").fill_null(value=True)
    laws = {
        "stock balances": follows,
        "stock is not negative": pl.col("on_hand") >= 0,
        "sales do not exceed demand": pl.col("sales") <= pl.col("demand"),
        "a stock-out empties the shelf": ~pl.col("stocked_out") | (pl.col("on_hand") == 0),
        "a stock-out is unmet demand": pl.col("stocked_out") == (pl.col("demand") > pl.col("sales")),
    }
    broken = truth.select(law.all().alias(name) for name, law in laws.items()).row(0, named=True)
    assert all(broken.values()), broken


@settings(max_examples=40, deadline=None)
@given(PARAMETERS)
def test_sales_and_stock_files_say_what_is_true(parameters: SimulationParameters) -> None:
    simulation = simulate(parameters)
    key = ["store_id", "item_id", "date"]
    sold = simulation.feeds["pos_sales"].rename({"business_date": "date"}).group_by(key).agg(pl.col("quantity").sum())
    true = simulation.truth.select(*key, (pl.col("sales") - pl.col("returns")).alias("net"))
    both = true.join(sold, on=key, how="full", coalesce=True).fill_null(0)
    assert (both["net"] == both["quantity"]).all()
    stock = simulation.feeds["inventory"].rename({"as_of_date": "date"}).select(*key, "on_hand")
    assert stock.equals(simulation.truth.select(*key, "on_hand"))


@settings(max_examples=40, deadline=None)
@given(PARAMETERS)
def test_grains_are_unique_and_every_id_has_a_master(parameters: SimulationParameters) -> None:
    feeds = simulate(parameters).feeds
    grains = {
        "items": ["item_id"],
        "stores": ["store_id"],
        "prices": ["store_id", "item_id", "valid_from"],
        "promotions": ["promotion_id", "store_id", "item_id"],
        "inventory": ["store_id", "item_id", "as_of_date"],
        "weather": ["region", "date"],
        "economic_indicators": ["indicator", "period_start"],
        "calendar_events": ["date", "event_name"],
    }
    for feed, grain in grains.items():
        assert not feeds[feed].select(grain).is_duplicated().any(), feed
    for feed in ("pos_sales", "inventory", "prices", "promotions"):
        assert set(feeds[feed]["item_id"]) <= set(feeds["items"]["item_id"])
        assert set(feeds[feed]["store_id"]) <= set(feeds["stores"]["store_id"])
    assert set(feeds["stores"]["region"]) <= set(feeds["weather"]["region"])
