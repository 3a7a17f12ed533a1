"""Elasticities and uplifts: exact where there is no noise, and with intervals that hold the truth of a simulation."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from retail_platform.features.demand import build_demand_panel
from retail_platform.features.effects import EFFECTS, price_and_promotion_effects
from retail_platform.settings import ForecastSettings
from retail_platform.sources.simulator import (
    CATEGORIES,
    PROMOTION_TYPES,
    Simulation,
    SimulationParameters,
    simulate,
)
from retail_platform_tests.panels import demand_panel

ELASTICITY, UPLIFT = -1.7, 1.4
SIMULATED = SimulationParameters(stores=1, items=150, days=365, seed=2, share_promoted=0.12)


def noiseless(items: int = 6, days: int = 120) -> pl.DataFrame:
    """Demand that follows the model to the letter: prices and promotions that change, levels that differ."""
    random = np.random.default_rng(1)
    price = np.repeat(random.choice([1.8, 2.0, 2.2], (items, days // 10)), 10, axis=1)
    promoted = np.repeat(random.random((items, days // 10)) < 0.3, 10, axis=1)
    depth = np.where(promoted, 0.2, 0.0)
    weekday = 1 + 0.1 * (np.arange(days) % 7)
    level = np.geomspace(1, 50, items)[:, None]
    units = level * weekday * (price * (1 - depth)) ** ELASTICITY * np.where(promoted, UPLIFT, 1)
    return demand_panel(
        {("S1", f"I{number}"): list(row) for number, row in enumerate(units)},
        ahead=0,
        price=price.ravel().tolist(),
        on_promotion=promoted.astype(float).ravel().tolist(),
        promotion_depth=depth.ravel().tolist(),
    )


def the_one(effects: pl.DataFrame) -> dict[str, float]:
    assert effects.schema == EFFECTS
    return effects.row(0, named=True)


def test_effects_without_noise_are_recovered_exactly() -> None:
    found = the_one(price_and_promotion_effects(noiseless()))
    assert found["elasticity"] == pytest.approx(ELASTICITY, abs=1e-4)
    assert found["beside_price"] == pytest.approx(UPLIFT, rel=1e-4)
    assert found["elasticity_low"] <= found["elasticity"] <= found["elasticity_high"]
    assert found["uplift"] == pytest.approx(UPLIFT * 0.8**ELASTICITY, rel=0.05)
    assert (found["items"], found["series"], found["days"], found["note"]) == (6, 6, 720, None)


@pytest.mark.parametrize(
    ("panel", "sentence"),
    [
        (noiseless(items=4), "promotions of 4 items, 5 are needed; price changes of 4 items, 5 are needed"),
        (noiseless().with_columns(price_announced=pl.lit(value=False)), "price changes of 0 items, 5 are needed"),
        (
            noiseless().with_columns(pl.lit(0, pl.Float32).alias("on_promotion")),
            "promotions of 0 items, 5 are needed",
        ),
        (noiseless().with_columns(pl.lit(0, pl.Float32).alias("units")), "promotions of 0 items"),
        (noiseless().with_columns(pl.lit(0, pl.Float32).alias("price")), "price changes of 0 items"),
    ],
    ids=["few items", "no announced price", "no promotion", "no sale", "price of zero"],
)
def test_what_cannot_be_told_is_null_and_said(panel: pl.DataFrame, sentence: str) -> None:
    found = the_one(price_and_promotion_effects(panel))
    assert sentence in str(found["note"])
    if "price changes" in sentence:
        assert found["elasticity"] is None
    if "promotions" in sentence:
        assert found["uplift"] is None


def test_no_days_give_no_groups_and_a_shop_that_is_shut_on_sundays_gives_finite_effects() -> None:
    assert price_and_promotion_effects(noiseless().clear()).is_empty()
    shut = noiseless().with_columns(pl.when(pl.col("date").dt.weekday() == 7).then(0).otherwise("units").alias("units"))
    found = the_one(price_and_promotion_effects(shut.cast({"units": pl.Float32})))
    assert found["elasticity"] == pytest.approx(ELASTICITY, abs=0.01)


def simulated_panel(simulation: Simulation) -> pl.DataFrame:
    feeds = simulation.feeds
    panel = build_demand_panel(
        feeds["pos_sales"],
        feeds["items"],
        feeds["stores"].with_columns(closed_on=pl.lit(None, pl.Date)),
        last_date=SIMULATED.last_date,
        settings=ForecastSettings(),
        prices=feeds["prices"],
        promotions=feeds["promotions"],
        inventory=feeds["inventory"],
    ).frame
    left = feeds["inventory"].select("store_id", "item_id", date="as_of_date", sold_out=pl.col("on_hand") <= 0)
    return panel.join(left, on=["store_id", "item_id", "date"], how="left")


def true_effects(simulation: Simulation) -> pl.DataFrame:
    """Elasticity of each category, and the uplift of its promotions: expected demand with them and without."""
    elasticity = {category.name: category.elasticity for category in CATEGORIES}
    boost = {name: factor for name, _, factor in PROMOTION_TYPES}
    promoted = simulation.feeds["promotions"].select(
        "store_id", "item_id", "promotion_type", "discount_share", date=pl.date_ranges("start_date", "end_date")
    )
    days = (
        simulation.truth.join(promoted.explode("date"), on=["store_id", "item_id", "date"])
        .join(simulation.feeds["items"].select("item_id", "category"), on="item_id")
        .with_columns(elasticity=pl.col("category").replace_strict(elasticity, return_dtype=pl.Float64))
    )
    factor = pl.col("promotion_type").replace_strict(boost, return_dtype=pl.Float64) * (
        1 - pl.col("discount_share")
    ) ** -pl.col("elasticity")
    expected = pl.col("expected_demand")
    return days.group_by(group="category").agg(
        true_elasticity=-pl.col("elasticity").first(), true_uplift=expected.sum() / (expected / factor).sum()
    )


def test_intervals_hold_the_truth_of_a_simulated_retailer_whose_promotions_sell_out() -> None:
    simulation = simulate(SIMULATED)
    panel = simulated_panel(simulation)
    found = price_and_promotion_effects(panel).join(true_effects(simulation), on="group")
    assert found.height == len(CATEGORIES)
    assert found["sold_out_days"].sum() > 500
    for effect in ("elasticity", "uplift"):
        truth = pl.col(f"true_{effect}")
        held = found.select(truth.is_between(f"{effect}_low", f"{effect}_high").sum()).item()
        # Of 12 intervals of 95 %, fewer than 9 hold once in 5,000 times.
        assert held >= 9, effect
    assert found.select((pl.col("uplift") / pl.col("true_uplift")).log().mean().abs()).item() < 0.06
    assert found.select((pl.col("elasticity") < 0).sum()).item() == len(CATEGORIES)
    # Sales that are taken for demand make promotions look smaller than they are.
    blind = price_and_promotion_effects(panel.drop("sold_out")).join(found, on="group", suffix="_told")
    assert (blind["uplift"] < blind["uplift_told"]).sum() >= 11


def test_only_so_many_groups_are_estimated_those_that_sell_most_first() -> None:
    panel = noiseless().with_columns(category=pl.concat_str(pl.lit("C"), pl.col("item_id").str.tail(1)))
    found = price_and_promotion_effects(panel, groups=2)
    assert found["group"].to_list() == ["C5", "C4"]


def test_days_to_come_and_days_without_stock_are_no_days() -> None:
    panel = noiseless()
    dead = panel.with_columns(pl.lit(value=False).alias("in_stock"), date=pl.col("date") + timedelta(days=120))
    ahead = panel.with_columns(pl.lit(None, pl.Float32).alias("units"), date=pl.col("date") + timedelta(days=240))
    assert price_and_promotion_effects(pl.concat([panel, dead, ahead])).equals(price_and_promotion_effects(panel))
