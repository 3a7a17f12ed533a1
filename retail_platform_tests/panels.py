"""Small demand panels made by hand, for the tests of features and forecasting."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from retail_platform.contracts import TABLES

START = date(2017, 1, 2)  # a Monday


def demand_panel(
    units: Mapping[tuple[str, str], Sequence[float]],
    *,
    ahead: int = 28,
    end: date | None = None,
    **columns: Sequence[Any],
) -> pl.DataFrame:
    """A frame of features.demand: the series end on the same day (`end`), then come `ahead` days without units.

    `columns` replace whole columns, in the order store, item, date.
    """
    longest = max(len(values) for values in units.values())
    end = end or START + timedelta(days=longest - 1)
    rows = [
        {
            "store_id": store,
            "item_id": item,
            "date": end + timedelta(days=day + 1 - len(values)),
            "units": float(values[day]) if day < len(values) else None,
        }
        for (store, item), values in sorted(units.items())
        for day in range(len(values) + ahead)
    ]
    frame = pl.DataFrame(
        rows, schema={"store_id": pl.String, "item_id": pl.String, "date": pl.Date, "units": pl.Float32}
    )
    usual = {
        "shard": "all",
        "department": "GROCERY",
        "category": "SOUP",
        "region": "CA",
        "listed": True,
        "in_stock": True,
        "price": 2.0,
        "price_announced": True,
        "on_promotion": 0.0,
        "promotion_depth": 0.0,
        "event_name": None,
        "event_type": None,
        "is_payday": False,
        "temperature": 10.0,
        "precipitation": 0.0,
        "consumer_prices": 240.0,
        "unemployment": 4.5,
    }
    frame = frame.with_columns(pl.lit(value).alias(name) for name, value in usual.items())
    frame = frame.with_columns(pl.Series(name, values, strict=False) for name, values in columns.items())
    contract = TABLES["features.demand"].polars_schema
    return frame.select(pl.col(name).cast(dtype) for name, dtype in contract.items())


def seasonal_panel(series: int = 6, days: int = 200, *, ahead: int = 28, seed: int = 7) -> pl.DataFrame:
    """Poisson demand with a strong weekly season; each series has its own level."""
    random = np.random.default_rng(seed)
    season = np.array([0.6, 0.7, 0.8, 0.9, 1.2, 1.7, 1.1])
    levels = np.geomspace(1, 20, series)
    return demand_panel(
        {
            (f"S{number % 2}", f"I{number:02}"): [
                1.0,
                *random.poisson(level * np.resize(season, days))[1:].astype(float),
            ]
            for number, level in enumerate(levels)
        },
        ahead=ahead,
    )
