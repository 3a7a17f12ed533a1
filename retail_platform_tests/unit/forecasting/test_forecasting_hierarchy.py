"""The levels of the hierarchy, and the measures of the M5 competition against its definition written out plainly."""

from collections.abc import Iterator
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.forecasting.hierarchy import LEVELS, Hierarchy, node_scales
from retail_platform.forecasting.metrics import M5_QUANTILES, wrmsse, wspl
from retail_platform_tests.panels import START, demand_panel

DAYS, HORIZON = 90, 7
STORES = {"CA_1": "CA", "CA_2": "CA", "TX_1": "TX"}
ITEMS = {"F1_1": ("FOODS_1", "FOODS"), "F1_2": ("FOODS_1", "FOODS"), "F2_1": ("FOODS_2", "FOODS"), "H1_1": ("H_1", "H")}
CUTOFF = START + timedelta(days=DAYS - 1)


def small_m5(seed: int = 3) -> pl.DataFrame:
    """Twelve series, some younger than others, with the hierarchy of M5 and days to score after the cutoff."""
    random = np.random.default_rng(seed)
    keys = [(store, item) for store in STORES for item in ITEMS]
    units = {
        key: [1.0, *random.poisson(random.uniform(0.3, 4), DAYS + HORIZON - 1 - 9 * (number % 4)).astype(float)]
        for number, key in enumerate(keys)
    }
    panel = demand_panel(units, ahead=0)
    store, item = pl.col("store_id"), pl.col("item_id")
    return panel.with_columns(
        region=store.replace_strict(STORES),
        category=item.replace_strict({name: category for name, (category, _) in ITEMS.items()}),
        department=item.replace_strict({name: department for name, (_, department) in ITEMS.items()}),
        price=(pl.lit(1.0) + store.rank("dense") + item.rank("dense") / 3).cast(pl.Float32),
    )


def forecasts(panel: pl.DataFrame, seed: int = 5) -> pl.DataFrame:
    """Some mean and quantiles for every series and day after the cutoff, beside what was sold."""
    ahead = panel.filter(pl.col("date") > CUTOFF)
    random = np.random.default_rng(seed)
    steps = np.sort(random.gamma(2, 1, (ahead.height, len(QUANTILES))), axis=1)
    return ahead.select(
        "store_id",
        "item_id",
        "date",
        pl.col("units").cast(pl.Float64),
        pl.Series("mean", random.gamma(2, 1, ahead.height)),
        *(pl.Series(name, steps[:, place]) for place, name in enumerate(QUANTILES)),
    )


def members(panel: pl.DataFrame) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Level and series of every node, found by going through all of them."""
    facts = panel.unique(["store_id", "item_id"], keep="first", maintain_order=True)
    for level, columns in LEVELS.items():
        nodes: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for row in facts.iter_rows(named=True):
            nodes.setdefault(tuple(row[name] for name in columns), []).append((row["store_id"], row["item_id"]))
        for series in nodes.values():
            yield level, series


def reference(panel: pl.DataFrame, forecast: pl.DataFrame) -> tuple[float, float]:
    """WRMSSE and WSPL as the competitor's guide defines them, one node after the other."""
    first = min(panel["date"])
    days = [first + timedelta(days=day) for day in range(DAYS + HORIZON)]
    sold = {
        key[:2]: {row[0]: row[1] for row in own.select("date", "units").iter_rows()}
        for key, own in panel.group_by("store_id", "item_id")
    }
    price = {key[:2]: own["price"][0] for key, own in panel.group_by("store_id", "item_id")}
    own = {key[:2]: rows.sort("date") for key, rows in forecast.group_by("store_id", "item_id")}
    turnover = {
        key: sum(price[key] * units for day, units in values.items() if CUTOFF - timedelta(days=28) < day <= CUTOFF)
        for key, values in sold.items()
    }
    whole = sum(turnover.values())
    totals: dict[str, list[float]] = {level: [0.0, 0.0] for level in LEVELS}
    for level, series in members(panel):
        units = [sum(sold[key].get(day, 0.0) for key in series) for day in days]
        start = next(place for place, value in enumerate(units) if value > 0)
        past, ahead = np.array(units[start:DAYS]), np.array(units[DAYS:])
        mean = sum(own[key]["mean"].to_numpy() for key in series)
        rmsse = np.sqrt(np.mean((ahead - mean) ** 2) / np.mean(np.diff(past) ** 2))
        losses = []
        for name in M5_QUANTILES:
            quantile, level_of = sum(own[key][name].to_numpy() for key in series), QUANTILES[name]
            missed = ahead - quantile
            losses.append(np.mean(np.where(missed >= 0, level_of * missed, (level_of - 1) * missed)))
        weight = sum(turnover[key] for key in series) / whole
        totals[level][0] += weight * rmsse
        totals[level][1] += weight * np.mean(losses) / np.mean(np.abs(np.diff(past)))
    rmsse_of_levels, spl_of_levels = zip(*totals.values(), strict=True)
    return float(np.mean(rmsse_of_levels)), float(np.mean(spl_of_levels))


def nodes_of(panel: pl.DataFrame, forecast: pl.DataFrame) -> pl.DataFrame:
    hierarchy = Hierarchy.of(panel)
    sums = hierarchy.sums(forecast, ["mean", "units", *QUANTILES])
    return sums.join(node_scales(panel, hierarchy, CUTOFF), on=["level", "node"])


@pytest.mark.parametrize("seed", [1, 2])
def test_wrmsse_and_wspl_are_those_of_the_competitions_definition(seed: int) -> None:
    panel = small_m5(seed)
    forecast = forecasts(panel, seed)
    nodes = nodes_of(panel, forecast)
    assert nodes["level"].n_unique() == 12
    expected = reference(panel, forecast)
    assert (wrmsse(nodes)["value"].item(), wspl(nodes)["value"].item()) == pytest.approx(expected, rel=1e-5)


def test_the_measures_of_the_levels_average_to_the_whole() -> None:
    panel = small_m5()
    nodes = nodes_of(panel, forecasts(panel))
    for measure in (wrmsse, wspl):
        levels = measure(nodes, ["level"])
        assert set(levels["level"]) == set(LEVELS)
        assert levels["value"].mean() == pytest.approx(measure(nodes)["value"].item())


def test_wrmsse_by_hand() -> None:
    # One series sells 1, 3, 1, 3 and then 2: squared changes of 4; a forecast of 5 misses by 3, so 3 / 2.
    panel = demand_panel({("S", "I"): [1.0, 3.0, 1.0, 3.0, 2.0]}, ahead=0)
    hierarchy, cutoff = Hierarchy.of(panel), START + timedelta(days=3)
    forecast = panel.filter(pl.col("date") > cutoff).select("store_id", "item_id", "date", "units", mean=pl.lit(5.0))
    nodes = hierarchy.sums(forecast, ["mean", "units"]).join(
        node_scales(panel, hierarchy, cutoff), on=["level", "node"]
    )
    assert wrmsse(nodes)["value"].item() == 1.5


def test_levels_that_are_unknown_or_say_nothing_new_do_not_count() -> None:
    two = {("S1", "A"): [1.0, 2.0], ("S1", "B"): [1.0, 2.0]}
    assert Hierarchy.of(demand_panel(two)).levels == ["total", "item"]
    unknown = demand_panel(two).with_columns(region=pl.lit(None, pl.String), department=pl.col("item_id"))
    assert Hierarchy.of(unknown).levels == ["total", "department"]
    assert Hierarchy.of(small_m5()).levels == list(LEVELS)


def test_sums_add_up_at_every_level() -> None:
    panel = small_m5()
    forecast = forecasts(panel)
    sums = Hierarchy.of(panel).sums(forecast, ["mean"])
    whole = sums.group_by("level", "date").agg(pl.col("mean").sum()).sort("date", "level")
    expected = forecast.group_by("date").agg(pl.col("mean").sum()).sort("date")["mean"].to_list()
    for _, level in whole.group_by("level"):
        assert level["mean"].to_list() == pytest.approx(expected)


def test_weights_are_shares_of_turnover_or_of_units_where_no_price_is_known() -> None:
    panel = demand_panel({("S1", "A"): [1.0] * 30, ("S2", "A"): [3.0] * 30}, price=[4.0] * 58 + [2.0] * 58)
    cutoff = START + timedelta(days=29)

    def weights(frame: pl.DataFrame) -> list[float]:
        scales = node_scales(frame, Hierarchy.of(frame), cutoff).filter(pl.col("level") == "store")
        return scales.sort("node")["weight"].to_list()

    assert weights(panel) == pytest.approx([0.4, 0.6])
    assert weights(panel.with_columns(price=pl.lit(None, pl.Float32))) == pytest.approx([0.25, 0.75])
    assert weights(panel.with_columns(units=pl.lit(0.0, pl.Float32))) == [0.5, 0.5]


def test_nothing_after_the_cutoff_changes_weights_or_scales() -> None:
    panel, cutoff = small_m5(), date(2017, 3, 1)
    hierarchy = Hierarchy.of(panel)
    later = pl.col("date") > cutoff
    changed = panel.with_columns(
        units=pl.when(later).then(pl.col("units") * 7 + 1).otherwise("units"),
        price=pl.when(later).then(9.0).otherwise("price").cast(pl.Float32),
    )
    assert node_scales(changed, hierarchy, cutoff).equals(node_scales(panel, hierarchy, cutoff))
