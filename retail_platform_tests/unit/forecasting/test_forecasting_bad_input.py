"""Whatever a shop's data hold, every series gets a finite forecast that is not negative, from every model."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import QUANTILES
from retail_platform.features.dense import DensePanel
from retail_platform.features.history import build_history
from retail_platform.forecasting.backtest import NotEnoughHistory, run_backtest
from retail_platform.forecasting.models import MODELS, NothingToLearn, fit_lightgbm, silent
from retail_platform.forecasting.training import forecast_of_nodes, make_forecast, train
from retail_platform.forecasting.training_set import (
    FEATURES,
    HorizonBlock,
    Known,
    forecast_rows,
    learn_categories,
    matrix,
)
from retail_platform.settings import ForecastSettings
from retail_platform_tests.panels import START, demand_panel

DAYS = 150
ORIGIN = START + timedelta(days=DAYS - 1)
QUICK = ForecastSettings(trees=10, leaves=7, threads=1, learning_rate=0.2)


def odd_panel() -> pl.DataFrame:
    """One series of each odd kind beside two ordinary ones."""
    random = np.random.default_rng(3)
    ordinary = random.poisson(3, DAYS).astype(float)
    units = {
        ("S1", "ORDINARY"): ordinary.tolist(),
        ("S2", "ORDINARY"): random.poisson(5, DAYS).astype(float).tolist(),
        ("S1", "ONE DAY"): [4.0],
        ("S1", "ALL ZEROS"): [0.0] * DAYS,
        ("S1", "ONLY STOCK-OUTS"): [0.0] * DAYS,
        ("S1", "GAP OF MONTHS"): [3.0] * 20 + [0.0] * 100 + [2.0] * 30,
        ("S1", "NEVER LISTED SINCE"): [2.0] * 30 + [0.0] * (DAYS - 30),
        ("S1", "PRICE OF ZERO"): ordinary.tolist(),
        ("S1", "NO PRICE AHEAD"): ordinary.tolist(),
        ("S2", "NO NAMES"): ordinary.tolist(),
    }
    item, date = pl.col("item_id"), pl.col("date")
    return demand_panel(units).with_columns(
        in_stock=item != "ONLY STOCK-OUTS",
        listed=(item != "NEVER LISTED SINCE") | (date < START + timedelta(days=30)),
        price=pl.when(item == "PRICE OF ZERO")
        .then(0.0)
        .when((item != "NO PRICE AHEAD") | (date <= ORIGIN))
        .then(2.0)
        .cast(pl.Float32),
        department=pl.when(item != "NO NAMES").then(pl.lit("GROCERY")),
        category=pl.when(item != "NO NAMES").then(pl.lit("SOUP")),
        region=pl.when(item != "NO NAMES").then(pl.lit("CA")),
    )


PANEL = odd_panel()
HISTORY = build_history(PANEL)


@pytest.fixture(scope="module")
def errors() -> pl.DataFrame:
    return run_backtest(PANEL, HISTORY, QUICK).errors


@pytest.mark.parametrize("name", MODELS)
def test_every_odd_series_gets_a_whole_finite_forecast(name: str, errors: pl.DataFrame) -> None:
    model = train(PANEL, HISTORY, errors, QUICK, model=name)
    forecast = make_forecast(model, PANEL, HISTORY, ORIGIN)
    assert forecast.height == 28 * PANEL.select("store_id", "item_id").n_unique()
    values = forecast.select("mean", *QUANTILES).to_numpy()
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    of = {item: own["mean"] for (item,), own in forecast.group_by("item_id")}
    assert of["NEVER LISTED SINCE"].sum() == 0
    assert of["ALL ZEROS"].mean() < 0.5
    nodes = forecast_of_nodes(model, PANEL, forecast)
    totals = nodes.group_by("level").agg(pl.col("mean").sum())["mean"].to_list()
    assert totals == pytest.approx([forecast["mean"].sum()] * len(totals))


def test_a_series_that_was_never_in_stock_borrows_the_level_of_its_department() -> None:
    known = Known.of(PANEL, HISTORY)
    rows = forecast_rows(known, HorizonBlock(1, 7), origin=ORIGIN)
    own = rows.filter(pl.col("item_id") == "ONLY STOCK-OUTS")
    assert own["mean_28"].null_count() == own.height
    assert own["level"].to_list() == pytest.approx(own["department_item_mean_28"].to_list())
    assert own["level"].min() > 0.5


def test_a_price_of_zero_gives_no_infinite_feature() -> None:
    rows = forecast_rows(Known.of(PANEL, HISTORY), HorizonBlock(1, 7), origin=ORIGIN)
    numbers = matrix(rows, learn_categories(rows))[
        :, [place for place, name in enumerate(FEATURES) if name.startswith("price")]
    ]
    assert not np.isinf(numbers).any()


def test_a_shard_without_rows_says_so_and_has_an_empty_forecast() -> None:
    nothing = TABLES["features.demand"].empty()
    history = build_history(nothing)
    with pytest.raises(NotEnoughHistory, match="holds 0 known days"):
        run_backtest(nothing, history, QUICK)
    with pytest.raises(NothingToLearn, match="load earlier sales"):
        fit_lightgbm(nothing, history, ORIGIN, QUICK, silent)
    model = fit_lightgbm(PANEL, HISTORY, ORIGIN, QUICK, silent)
    assert model.predict_mean(nothing, history, ORIGIN).is_empty()


def test_a_panel_that_lacks_a_day_of_a_series_is_refused_by_name() -> None:
    broken = PANEL.filter(~((pl.col("item_id") == "PRICE OF ZERO") & (pl.col("date") == ORIGIN)))
    with pytest.raises(ValueError, match=r"1 series of the panel lack a day or have one twice \(S1/PRICE OF ZERO\)"):
        DensePanel.of(broken, "date")


def test_an_item_that_changed_its_department_is_forecast_under_its_new_one() -> None:
    moved = PANEL.with_columns(
        department=pl.when(pl.col("item_id") == "GAP OF MONTHS").then(pl.lit("SEASONAL")).otherwise("department")
    )
    history = build_history(moved)
    model = fit_lightgbm(PANEL, HISTORY, ORIGIN, QUICK, silent)
    forecast = model.predict_mean(moved, history, ORIGIN).filter(pl.col("item_id") == "GAP OF MONTHS")
    assert forecast.height == 28
    assert forecast["mean"].is_finite().all()
