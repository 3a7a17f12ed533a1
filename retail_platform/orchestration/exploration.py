"""The exploration page of a home: what is read for it and where it goes. Not here: what it shows
(`monitoring/profile_page.py`).
"""

from pathlib import Path

import polars as pl

from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.runner import RunFailed
from retail_platform.orchestration.simulated import notes_on_simulated

PAGE = "explore.html"
SHOWN_DAYS = 3 * 366
MOST_ROWS = 4_000_000

_COLUMNS = (
    "store_id",
    "item_id",
    "date",
    "department",
    "category",
    "units",
    "listed",
    "in_stock",
    "price",
    "price_announced",
    "on_promotion",
    "promotion_depth",
    "event_name",
    "is_payday",
)


def explore(lakehouse: Lakehouse) -> Path:
    """Write reports/explore.html from the demand panel, and return its place. Raises `RunFailed` without a panel."""
    from retail_platform.monitoring.profile_page import profile_page_html

    settings = lakehouse.settings
    rows, last = lakehouse.query(
        "SELECT count(*), max(date) FROM features.demand WHERE units IS NOT NULL",
    ).row(0)
    if not rows:
        raise RunFailed("there is no demand panel to explore yet; `retail-platform run` makes it")
    demand, notes = _panel(lakehouse, last)
    page = profile_page_html(
        f"Demand up to {last}",
        demand,
        facts=[("Forecast level", settings.forecast.item_level)],
        notes=[*notes, *notes_on_simulated(lakehouse)],
    )
    place = settings.reports / PAGE
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(page, encoding="utf-8")
    return place


def _panel(lakehouse: Lakehouse, last: object) -> tuple[pl.DataFrame, list[str]]:
    """The known days of the last years with `sold_out`; of too many series some, chosen by a hash of their names."""
    recent = f"units IS NOT NULL AND date > ?::DATE - {SHOWN_DAYS}"
    rows = lakehouse.query(f"SELECT count(*) FROM features.demand WHERE {recent}", [last]).item()
    parts = -(-rows // MOST_ROWS)
    columns = ", ".join(f"d.{name}" for name in _COLUMNS)
    demand = lakehouse.query(
        # Where the forecast level is no item, no row of stock has the name of a series.
        f"SELECT {columns}, coalesce(i.on_hand <= 0, false) AS sold_out FROM features.demand AS d "
        "LEFT JOIN clean.inventory AS i ON i.store_id = d.store_id AND i.item_id = d.item_id AND i.as_of_date = d.date "
        f"WHERE {recent} AND hash(d.store_id, d.item_id) % ? = 0",
        [last, parts],
    )
    notes = [f"Shown are the last {SHOWN_DAYS // 366} years at most."]
    if parts > 1:
        notes.append(f"Shown is every {parts}th series, chosen by chance: the panel has {rows:,} rows.")
    return demand, notes
