"""The simulated retailer is repeatable, writes what it simulates, and keeps the truth to itself."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retail_platform.contracts import FEEDS
from retail_platform.sources.landing import LandingError
from retail_platform.sources.simulator import (
    LOYALTY_SHARE,
    Simulation,
    SimulationParameters,
    simulate,
    simulate_economy,
    simulate_weather,
    write_simulation,
)


@pytest.fixture(scope="module")
def year() -> Simulation:
    return simulate(SimulationParameters(stores=3, items=80))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def written(folder: Path, parameters: SimulationParameters) -> dict[str, bytes]:
    write_simulation(parameters, folder / "landing", folder / "truth")
    return content(folder)


def test_frames_hold_the_columns_and_types_of_their_feeds(year: Simulation) -> None:
    with_receipts = simulate(SimulationParameters(stores=1, items=10, days=30, receipts=True, customers=5))
    for simulation in (year, with_receipts):
        for feed, frame in simulation.feeds.items():
            types = {column.name: column.dtype for column in FEEDS[feed].columns}
            assert set(FEEDS[feed].required_columns) <= set(frame.columns)
            assert all(types[name] == dtype for name, dtype in frame.schema.items()), feed
    assert set(with_receipts.feeds) == set(FEEDS)


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    parameters = SimulationParameters(stores=2, items=20, days=60, receipts=True, customers=50)
    first = written(tmp_path / "first", parameters)
    assert first == written(tmp_path / "second", parameters)
    other = written(tmp_path / "other", SimulationParameters(stores=2, items=20, days=60, seed=1))
    assert first["landing/pos_sales/simulated-S001.parquet"] != other["landing/pos_sales/simulated-S001.parquet"]


def test_more_stores_leave_the_first_ones_as_they_are(tmp_path: Path) -> None:
    two = written(tmp_path / "two", SimulationParameters(stores=2, items=20, days=60))
    five = written(tmp_path / "five", SimulationParameters(stores=5, items=20, days=60))
    shared = [name for name in two if not name.startswith("landing/stores/")]
    assert {name: two[name] for name in shared} == {name: five[name] for name in shared}
    assert len(five) == len(two) + 3 * len([name for name in two if "S001" in name])


def test_what_is_written_is_what_is_simulated(tmp_path: Path) -> None:
    parameters = SimulationParameters(stores=2, items=15, days=40)
    simulation = simulate(parameters)
    report = write_simulation(parameters, tmp_path / "landing", tmp_path / "truth")
    for feed in ("pos_sales", "inventory", "prices", "promotions"):
        assert pl.read_parquet(tmp_path / "landing" / feed / "*.parquet").equals(simulation.feeds[feed])
    assert pl.read_parquet(tmp_path / "truth" / "*.parquet").equals(simulation.truth)
    assert report.rows_by_feed() == {feed: frame.height for feed, frame in simulation.feeds.items()}


def test_the_truth_stays_out_of_the_landing_zone(tmp_path: Path) -> None:
    parameters = SimulationParameters(stores=1, items=5, days=20)
    write_simulation(parameters, tmp_path / "landing", tmp_path / "truth")
    secret = {"expected_demand", "demand", "stocked_out"}
    for path in (tmp_path / "landing").rglob("*.*"):
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
        assert not secret & set(frame.columns)
    assert secret < set(pl.read_parquet_schema(tmp_path / "truth" / "S001.parquet"))
    for folder in (tmp_path / "landing", tmp_path / "landing" / "truth"):
        with pytest.raises(LandingError, match="must not lie in the landing zone"):
            write_simulation(parameters, tmp_path / "landing", folder)


def test_demand_is_drawn_from_its_expectation_with_the_stated_variance() -> None:
    parameters = SimulationParameters(stores=4, items=150, days=200, overdispersion=0.4)
    truth = simulate(parameters).truth
    expected, demand = truth["expected_demand"].to_numpy(), truth["demand"].to_numpy()
    score = (demand - expected) / np.sqrt(expected + 0.4 * expected**2)
    assert abs(score.mean()) < 0.02
    # Squared scores of rare counts have heavy tails, so judge where demand is not rare.
    assert abs((score[expected > 2] ** 2).mean() - 1) < 0.05


def test_promotions_and_low_prices_sell_more_and_weekends_do_too(year: Simulation) -> None:
    promotions = year.feeds["promotions"].select(
        "store_id", "item_id", pl.date_ranges("start_date", "end_date").alias("date")
    )
    promoted = promotions.explode("date").with_columns(promoted=True)
    usual = pl.col("expected_demand").mean().over("store_id", "item_id")
    truth = year.truth.join(promoted, on=["store_id", "item_id", "date"], how="left").with_columns(
        pl.col("promoted").fill_null(value=False), relative=pl.col("expected_demand") / usual
    )
    by_promotion = dict(truth.group_by("promoted").agg(pl.col("relative").mean()).iter_rows())
    assert by_promotion[True] > 1.4 * by_promotion[False]
    by_weekday = dict(truth.group_by(pl.col("date").dt.weekday()).agg(pl.col("relative").mean()).iter_rows())
    assert by_weekday[6] > 1.1 * by_weekday[2]


def test_there_are_launches_endings_stock_outs_and_returns(year: Simulation) -> None:
    life = year.truth.group_by("item_id").agg(pl.col("date").min().alias("first"), pl.col("date").max().alias("last"))
    assert (life["first"] > date(2017, 1, 1)).any()
    assert (life["last"] < date(2017, 12, 31)).any()
    assert 0.001 < year.truth["stocked_out"].mean() < 0.1  # type: ignore[operator]
    assert year.truth["returns"].sum() > 0
    assert (year.feeds["pos_sales"]["quantity"] < 0).any()


def test_every_listed_day_has_exactly_one_price_and_no_other_day_has_one(year: Simulation) -> None:
    last = date(2017, 12, 31)
    prices = year.feeds["prices"].with_columns(pl.col("valid_to").fill_null(last).clip(upper_bound=last))
    days = prices.filter(pl.col("valid_from") <= last).select(
        "store_id", "item_id", pl.date_ranges("valid_from", "valid_to").alias("date")
    )
    key = ["store_id", "item_id", "date"]
    assert days.explode("date").select(key).sort(key).equals(year.truth.select(key).sort(key))


def test_promotions_are_planned_beyond_the_last_day_and_sales_are_not(year: Simulation) -> None:
    last = date(2017, 12, 31)
    assert year.feeds["promotions"]["end_date"].max() > last  # type: ignore[operator]
    assert year.feeds["calendar_events"]["date"].max() > last  # type: ignore[operator]
    assert year.feeds["pos_sales"]["business_date"].max() == last
    assert year.feeds["weather"]["date"].max() == last


def test_receipts_hold_the_same_units_as_the_truth() -> None:
    simulation = simulate(SimulationParameters(stores=2, items=30, days=50, receipts=True, customers=40))
    lines = simulation.feeds["pos_sales"]
    sold = lines.group_by("store_id", "item_id", pl.col("business_date").alias("date")).agg(pl.col("quantity").sum())
    true = simulation.truth.with_columns(net=pl.col("sales") - pl.col("returns"))
    both = true.join(sold, on=["store_id", "item_id", "date"], how="left").with_columns(pl.col("quantity").fill_null(0))
    assert (both["net"] == both["quantity"]).all()
    assert sold.height == true.filter((pl.col("sales") > 0) | (pl.col("returns") > 0)).height
    assert not lines.select("transaction_id", "line_number").is_duplicated().any()
    heads = lines.group_by("transaction_id").agg(
        pl.col("store_id", "business_date", "sold_at", "customer_id").n_unique(),
        pl.col("line_number").max() == pl.len(),
    )
    assert heads.drop("transaction_id", "line_number").max().row(0) == (1, 1, 1, 1)
    assert heads["line_number"].all()
    with_card = lines.unique("transaction_id")["customer_id"].is_not_null().mean()
    assert with_card == pytest.approx(LOYALTY_SHARE, abs=0.05)


def test_a_single_day_of_a_single_item_can_be_simulated() -> None:
    simulation = simulate(SimulationParameters(stores=1, items=1, days=1, planned_days=0, share_new=0, share_ending=0))
    assert simulation.truth.height == 1
    assert simulation.feeds["inventory"].height == 1


def test_no_demand_is_no_sales() -> None:
    nothing = simulate(SimulationParameters(stores=1, items=5, days=20, mean_daily_units=0, overdispersion=0))
    assert nothing.feeds["pos_sales"].is_empty()
    receipts = simulate(SimulationParameters(stores=1, items=5, days=20, mean_daily_units=0, receipts=True))
    assert receipts.feeds["pos_sales"].is_empty()


def test_every_unusable_parameter_is_named() -> None:
    with pytest.raises(ValueError, match="simulation parameters") as refused:
        SimulationParameters(stores=0, share_promoted=2, overdispersion=-1, customers=5)
    for name in ("stores", "share_promoted", "overdispersion", "customers"):
        assert name in str(refused.value)


def test_weather_of_a_region_does_not_depend_on_the_regions_after_it() -> None:
    first, last = date(2017, 1, 1), date(2017, 12, 31)
    alone = simulate_weather(["North"], first, last, seed=3)
    both = simulate_weather(["North", "South"], first, last, seed=3)
    assert both.head(365).equals(alone)
    assert both.select(
        (pl.col("temperature_min") <= pl.col("temperature_mean")).all()
        & (pl.col("temperature_mean") <= pl.col("temperature_max")).all()
        & (pl.col("precipitation") >= 0).all()
    ).item()


def test_economic_figures_are_published_after_their_month_and_not_after_the_last_day() -> None:
    figures = simulate_economy(date(2016, 2, 29), date(2017, 6, 10), seed=3)
    assert (figures["published_on"] >= figures["period_start"].dt.offset_by("1mo")).all()
    assert figures["published_on"].max() == date(2017, 6, 5)
    assert figures["published_on"].min() <= date(2016, 2, 29)  # type: ignore[operator]
    assert not figures.select("indicator", "period_start").is_duplicated().any()
