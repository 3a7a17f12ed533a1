"""ABC by turnover, XYZ by how well the next week is foreseen."""

from datetime import timedelta

import numpy as np
import polars as pl

from retail_platform.features.classes import demand_classes
from retail_platform_tests.panels import START, demand_panel

DAYS = 300
LAST = START + timedelta(days=DAYS - 1)


def classes(units: dict[tuple[str, str], list[float]], **columns: object) -> dict[str, str]:
    frame = demand_classes(demand_panel(units, ahead=0, **columns), LAST)  # type: ignore[arg-type]
    return dict(frame.select("item_id", "demand_class").iter_rows())


def test_series_are_graded_by_their_share_of_turnover() -> None:
    units = {("S", name): [level] * DAYS for name, level in (("A1", 50.0), ("A2", 40.0), ("B", 8.0), ("C", 2.0))}
    assert classes(units) == {"A1": "AX", "A2": "AX", "B": "BX", "C": "CX"}
    dear = {"price": [1.0] * (3 * DAYS) + [500.0] * DAYS}
    assert classes(units, **dear)["C"] == "AX"


def test_where_no_price_is_known_units_are_graded() -> None:
    units = {("S", "A"): [90.0] * DAYS, ("S", "C"): [1.0] * DAYS}
    assert classes(units, price=[None] * (2 * DAYS)) == {"A": "AX", "C": "CX"}


def test_regularity_is_how_far_weeks_stray_from_the_weeks_before() -> None:
    random = np.random.default_rng(2)
    weeks = np.arange(DAYS) // 7
    units = {
        ("S", "X"): [10.0] * DAYS,
        ("S", "Y"): (10 * np.exp(0.6 * random.standard_normal(weeks.max() + 1)))[weeks].tolist(),
        ("S", "Z"): np.where(weeks % 8 == 0, 80.0, 0.01).tolist(),
    }
    assert {name: both[1] for name, both in classes(units).items()} == {"X": "X", "Y": "Y", "Z": "Z"}


def test_a_series_that_sold_nothing_and_a_new_one_have_a_class() -> None:
    found = classes({("S", "OLD"): [5.0] * DAYS, ("S", "DEAD"): [1.0] + [0.0] * (DAYS - 1), ("S", "NEW"): [1.0]})
    assert found == {"OLD": "AX", "DEAD": "CZ", "NEW": "CZ"}


def test_nothing_after_the_day_counts() -> None:
    panel = demand_panel({("S", "A"): [5.0] * DAYS, ("S", "B"): [1.0] * DAYS}, ahead=0)
    early = LAST - timedelta(days=50)
    changed = panel.with_columns(units=pl.when(pl.col("date") > early).then(99.0).otherwise("units").cast(pl.Float32))
    assert demand_classes(changed, early).equals(demand_classes(panel, early))
