"""Order proposals must follow the policy, say what they do not know and refuse what they cannot use."""

from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from scipy import stats  # type: ignore[import-untyped]

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import QUANTILES
from retail_platform.replenishment.orders import propose_orders
from retail_platform.settings import ReplenishmentSettings

ORIGIN = date(2017, 3, 5)
ISSUED_AT = datetime(2017, 3, 6, 4, 30)
SETTINGS = ReplenishmentSettings()
REQUIREMENTS = TABLES["forecast.inventory_requirements"]


def forecast_of(series: dict[tuple[str, str], list[float]], *, spread: bool = False) -> pl.DataFrame:
    """Forecasts with the given daily means; certain, or of Poisson demand where `spread`."""
    rows = [
        {
            "forecast_origin": ORIGIN,
            "store_id": store,
            "item_id": item,
            "date": ORIGIN + timedelta(days=horizon),
            "horizon": horizon,
            "mean": mean,
            **{name: float(stats.poisson.ppf(p, mean)) if spread else mean for name, p in QUANTILES.items()},
            "shard": "all",
            "model": "lightgbm",
            "model_version": "v1",
            "issued_at": ISSUED_AT,
        }
        for (store, item), means in series.items()
        for horizon, mean in enumerate(means, start=1)
    ]
    return TABLES["forecast.demand"].validate(pl.DataFrame(rows, schema=TABLES["forecast.demand"].polars_schema))


def stock_of(*rows: tuple[str, str, float, float | None], as_of: date = ORIGIN) -> pl.DataFrame:
    contract = TABLES["clean.inventory"]
    records = [
        {
            "source_file_id": "0" * 64,
            "source_row_number": number,
            "as_of_date": as_of,
            "store_id": store,
            "item_id": item,
            "on_hand": on_hand,
            "on_order": on_order,
        }
        for number, (store, item, on_hand, on_order) in enumerate(rows, start=1)
    ]
    return pl.DataFrame(records, schema=contract.polars_schema)


def items_of(*rows: dict[str, Any]) -> pl.DataFrame:
    records = [{"source_file_id": "0" * 64, "source_row_number": n, **row} for n, row in enumerate(rows, start=1)]
    return pl.DataFrame(records, schema=TABLES["clean.items"].polars_schema)


def propose(
    forecast: pl.DataFrame,
    stock: pl.DataFrame | None = None,
    items: pl.DataFrame | None = None,
    settings: ReplenishmentSettings = SETTINGS,
    *,
    simulated: bool = False,
) -> pl.DataFrame:
    proposals = propose_orders(forecast, stock, items, settings, issued_at=ISSUED_AT, stock_is_simulated=simulated)
    return REQUIREMENTS.validate(proposals).sort("store_id", "item_id")


def test_certain_demand_needs_exactly_its_sum() -> None:
    proposals = propose(forecast_of({("s", "a"): [1.1, 2.2, 3.3, 4.4, 5.5]}), stock_of(("s", "a", 4.0, 2.0)))
    row = proposals.row(0, named=True)
    assert row["protection_days"] == 4
    assert row["expected_demand"] == pytest.approx(11.0)
    assert row["order_up_to_level"] == pytest.approx(11.0)
    assert row["safety_stock"] == pytest.approx(0, abs=1e-9)
    assert row["order_quantity"] == 5


def test_rounding_does_not_order_a_case() -> None:
    means = [0.1 + 0.2, 0.3, 0.1, 0.1]
    proposals = propose(forecast_of({("s", "a"): means}), stock_of(("s", "a", 0.8, None)))
    assert proposals["order_quantity"].to_list() == [0.0]


def test_lead_time_and_case_come_from_the_item_else_from_the_settings() -> None:
    items = items_of({"item_id": "a", "lead_time_days": 6, "case_pack": 12}, {"item_id": "b"})
    forecast = forecast_of({("s", "a"): [1.0] * 14, ("s", "b"): [1.0] * 14, ("s", "c"): [1.0] * 14})
    settings = ReplenishmentSettings(lead_time_days=2, review_period_days=3, case_pack=5)
    proposals = propose(forecast, stock_of(*[("s", item, 0.0, 0.0) for item in "abc"]), items, settings)
    assert proposals["lead_time_days"].to_list() == [6, 2, 2]
    assert proposals["protection_days"].to_list() == [9, 5, 5]
    assert proposals["case_pack"].to_list() == [12, 5, 5]
    assert proposals["order_quantity"].to_list() == [12, 5, 5]


def test_a_category_or_department_has_the_median_lead_time_of_its_items() -> None:
    items = items_of(
        *({"item_id": f"i{days}", "category": "DAIRY", "lead_time_days": days, "case_pack": 6} for days in (1, 2, 9)),
        {"item_id": "x", "category": "DAIRY"},
        {"item_id": "y", "department": "GROCERY", "lead_time_days": 4},
        {"item_id": "z", "department": "GROCERY", "lead_time_days": 5},
    )
    by_category = propose(forecast_of({("s", "DAIRY"): [1.0] * 9, ("s", "UNKNOWN"): [1.0] * 9}), items=items)
    assert by_category["lead_time_days"].to_list() == [2, 3]
    assert by_category["case_pack"].to_list() == [1, 1]
    by_department = propose(forecast_of({("s", "GROCERY"): [1.0] * 9}), items=items)
    assert by_department["lead_time_days"].to_list() == [5]


def test_a_category_has_the_stock_of_its_items_beside_its_own() -> None:
    items = items_of(
        {"item_id": "a", "category": "DAIRY", "department": "FRESH"},
        {"item_id": "b", "category": "DAIRY", "department": "FRESH"},
        {"item_id": "c", "category": "BREAD", "department": "DAIRY"},
    )
    stock = pl.concat(
        [
            stock_of(("s", "a", 1.0, None), ("s", "c", 50.0, 9.0), ("s", "DAIRY", 2.0, None)),
            stock_of(("s", "b", 4.0, 3.0), as_of=date(2017, 3, 1)),
        ]
    )
    forecast = forecast_of({("s", "DAIRY"): [5.0] * 4, ("s", "BREAD"): [5.0] * 4})
    bread, dairy = propose(forecast, stock, items).iter_rows(named=True)
    assert (dairy["on_hand"], dairy["on_order"], dairy["stock_as_of"]) == (7, 3, date(2017, 3, 1))
    assert (bread["on_hand"], bread["on_order"], bread["stock_as_of"]) == (50, 9, ORIGIN)
    assert dairy["order_quantity"] == 10


def test_unknown_stock_gives_a_level_and_no_order() -> None:
    forecast = forecast_of({("s", "a"): [2.0] * 4, ("s", "b"): [2.0] * 4})
    for stock in (None, stock_of(), stock_of(("s", "b", 3.0, None))):
        unknown = propose(forecast, stock, simulated=True).row(0, named=True)
        assert unknown["order_up_to_level"] == 8
        assert [unknown[name] for name in ("on_hand", "order_quantity", "stock_as_of")] == [None, None, None]
        assert not unknown["stock_is_simulated"]
    known = propose(forecast, stock, simulated=True).row(1, named=True)
    assert (known["order_quantity"], known["on_order"], known["stock_is_simulated"]) == (5, None, True)


def test_stock_above_the_level_orders_nothing_and_negative_books_are_made_good() -> None:
    forecast = forecast_of({("s", "a"): [2.0] * 4, ("s", "b"): [2.0] * 4})
    proposals = propose(forecast, stock_of(("s", "a", 50.0, 0.0), ("s", "b", -3.0, 1.0)))
    assert proposals["order_quantity"].to_list() == [0, 10]


def test_beyond_the_horizon_its_last_week_repeats() -> None:
    means = [float(day) for day in range(1, 11)]
    items = items_of({"item_id": "a", "lead_time_days": 16})
    row = propose(forecast_of({("s", "a"): means}), items=items).row(0, named=True)
    assert row["protection_days"] == 17
    assert row["expected_demand"] == pytest.approx(sum(means) + sum(means[3:10]))


def test_demand_that_varies_needs_a_safety_stock() -> None:
    forecast = forecast_of({("s", "a"): [5.0] * 7, ("s", "b"): [0.01] * 7}, spread=True)
    fast, slow = propose(forecast).iter_rows(named=True)
    assert 5 < fast["safety_stock"] < 12
    assert fast["safety_stock"] == fast["order_up_to_level"] - fast["expected_demand"]
    assert slow["order_up_to_level"] == 0
    assert slow["safety_stock"] < 0


def test_every_input_that_cannot_be_used_is_named_at_once() -> None:
    forecast = forecast_of({("s", "a"): [1.0] * 4, ("s", "b"): [1.0] * 3})
    other = forecast.with_columns(forecast_origin=pl.lit(ORIGIN - timedelta(days=1)), store_id=pl.lit("t"))
    stock = pl.concat([stock_of(("s", "a", 1.0, 0.0)), stock_of(("s", "a", 1.0, 0.0), as_of=date(2017, 3, 6))])
    with pytest.raises(ValueError, match="no orders can be proposed") as broken:
        propose(pl.concat([forecast, other]), stock)
    for part in (
        "2 origins (2017-03-04, 2017-03-05)",
        "2 series lack a day",
        "s/b, t/b",
        "several rows of s/a",
        "1 stock rows",
    ):
        assert part in str(broken.value)


def test_no_forecast_gives_no_proposals() -> None:
    assert propose(TABLES["forecast.demand"].empty(), stock_of(("s", "a", 1.0, 0.0))).is_empty()
