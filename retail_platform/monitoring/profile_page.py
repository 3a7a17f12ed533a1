"""The exploration page: one self-contained HTML page on the shape of demand, for a data scientist to look at first.

Here: which figures it shows, in which order, and what is said of them. Not here: the figures themselves
(`features/profile.py`, `features/effects.py`), the pictures (`monitoring/profile_charts.py`), and where the page is
kept.
"""

import calendar
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from retail_platform.features.effects import price_and_promotion_effects
from retail_platform.features.profile import (
    MOVING_DAYS,
    PATTERNS,
    SPARSE_INTERVAL,
    VARIABLE_SIZE,
    demand_patterns,
    movers,
    seasonal_indices,
    stock_outs,
    weekly_totals,
)
from retail_platform.forecasting.report import Picture, page
from retail_platform.monitoring.profile_charts import (
    effects_chart,
    movers_chart,
    pattern_chart,
    season_chart,
    weeks_chart,
)

_PERIODS: dict[str, Callable[[int], str]] = {
    "weekday": lambda number: calendar.day_name[number - 1],
    "month": lambda number: calendar.month_name[number],
    "year": str,
}
_IN_WORDS = {
    "smooth": "sells often, in like amounts",
    "erratic": "sells often, in unlike amounts",
    "intermittent": "sells seldom, in like amounts",
    "lumpy": "sells seldom, in unlike amounts",
    "no sales": "was available and never sold",
}


@dataclass(frozen=True)
class Section:
    """A heading, what is to be known of the figures below it, a picture, and the figures as a table."""

    title: str
    words: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    picture: Picture | None = None


def profile_page_html(
    title: str, demand: pl.DataFrame, *, facts: Sequence[tuple[str, str]] = (), notes: Sequence[str] = ()
) -> str:
    """Profile a demand panel and render the page. Every text is escaped; the page loads nothing.

    `demand` is the panel (features.demand) with at least one known day, and may have the column `sold_out` (see
    `price_and_promotion_effects`).
    """
    known = demand.filter(pl.col("units").is_not_null())
    first, last = known.select(first=pl.col("date").min(), last=pl.col("date").max()).row(0)
    size = [
        ("Series", f"{known.select('store_id', 'item_id').n_unique():,}"),
        ("Stores", f"{known['store_id'].n_unique():,}"),
        ("Items", f"{known['item_id'].n_unique():,}"),
        ("Days", f"{first} to {last}"),
        ("Units sold", f"{known['units'].cast(pl.Float64).sum():,.0f}"),
    ]
    sections = [_patterns(known), _seasons(known), _weeks(known), _effects(known), _stock_outs(known), _movers(known)]
    return page(
        "profile_page.html", room="monitoring", title=title, facts=[*size, *facts], sections=sections, notes=notes
    )


def _patterns(known: pl.DataFrame) -> Section:
    patterns = demand_patterns(known)
    counted = patterns.group_by("pattern").agg(
        series=pl.len(),
        units=pl.col("units").sum(),
        interval=pl.col("interval").median(),
        variation=pl.col("variation").median(),
    )
    by_name = {row["pattern"]: row for row in counted.iter_rows(named=True)}
    total = max(float(patterns["units"].sum()), 1e-9)
    rows = [
        (
            pattern,
            _IN_WORDS[pattern],
            f"{row['series']:,}",
            f"{row['units'] / total:.1%}",
            _number(row["interval"]),
            _number(row["variation"]),
        )
        for pattern in (*PATTERNS, "no sales")
        if (row := by_name.get(pattern))
    ]
    most = max(rows, key=lambda row: int(row[2].replace(",", "")))[0] if rows else "none"
    return Section(
        "How regularly items sell",
        [
            (
                f"A series is sparse if it takes {SPARSE_INTERVAL} days or more from sale to sale on average, and "
                f"variable if the squared variation of the units sold per selling day is {VARIABLE_SIZE} or more "
                "(Syntetos, Boylan and Croston 2005). Out-of-stock and unlisted days do not count."
            )
        ],
        ["Pattern", "A series that", "Series", "Units", "Days from sale to sale", "Squared variation"],
        rows,
        Picture(
            pattern_chart(patterns),
            "One mark per series; the dashed lines part the four patterns",
            f"Scatter plot of {patterns.height:,} series by interval and variation, most of them {most}; the table has "
            "the counts",
        ),
    )


def _seasons(known: pl.DataFrame) -> Section:
    indices = seasonal_indices(known)
    rows = [
        (row["cut"], _PERIODS[row["cut"]](row["period"]), _number(row["index"]), f"{row['days']:,}")
        for row in indices.iter_rows(named=True)
    ]
    words = [
        (
            "Mean units per series and day, relative to the mean of all days; a month relative to the known days of "
            "its own year. Where less than two years are known, a month cannot be told from what else happened in "
            "it."
        )
    ]
    return Section(
        "Seasons",
        words,
        ["Cut", "Period", "Relative demand", "Days"],
        rows,
        Picture(
            season_chart(indices),
            "Demand by weekday and by month",
            f"Two bar charts. {_extremes(indices, 'weekday')} {_extremes(indices, 'month')}",
        ),
    )


def _weeks(known: pl.DataFrame) -> Section:
    weeks = weekly_totals(known)
    rows = [
        (str(row["week"]), f"{row['units']:,.0f}", f"{row['on_promotion']:.1%}", _share(row["out_of_stock"]))
        for row in weeks.tail(13).iter_rows(named=True)
    ]
    return Section(
        "Week by week",
        ["Whole weeks; the table has the last 13 of them."],
        ["Week of", "Units", "On promotion", "Out of stock"],
        rows,
        Picture(
            weeks_chart(weeks),
            "Units, share of days on promotion and share of listed days out of stock",
            f"Three line charts over {weeks.height} weeks; the table has the last 13",
        ),
    )


def _effects(known: pl.DataFrame) -> Section:
    by = "category" if known["category"].n_unique() > 1 else "department"
    effects = price_and_promotion_effects(known, by=by)
    rows = [
        (
            row["group"],
            f"{row['items']:,}",
            f"{row['promoted_days']:,}",
            _interval(row, "elasticity"),
            _interval(row, "uplift"),
            _interval(row, "beside_price"),
            row["note"] or "",
        )
        for row in effects.iter_rows(named=True)
    ]
    told = effects.filter(pl.col("elasticity").is_not_null() | pl.col("uplift").is_not_null()).height
    return Section(
        "Price and promotions",
        [
            (
                "Elasticity: change of demand in percent for one percent more of the price paid. Uplift: demand on "
                "promotion relative to demand without; beside the price: what of it the lower price does not "
                "explain, such as display or mailing. In brackets the 95 % interval."
            ),
            (
                "How: Poisson regression on daily units with a level for each series and quarter, the logarithm of "
                "the price paid, promotion, weekday, events and pay days. Where stock ran out though something was "
                "sold, demand counts as at least that. Intervals leave out one item after the other."
            ),
            (
                "It holds only if prices and promotions were not set in expectation of unusual demand; if purchases "
                "are not moved from later weeks of the quarter (stocking up makes both look larger); and if promoted "
                "items do not take sales from other items. None of this can be seen in these data. An experiment can "
                "tell."
            ),
        ],
        [by.capitalize(), "Items", "Promoted days", "Elasticity", "Uplift", "Beside the price", "Not told"],
        rows,
        Picture(
            effects_chart(effects),
            "Estimates with 95 % intervals; the line marks no effect",
            f"Two interval plots, price elasticity and promotion uplift of {told} groups; the table has the values",
        )
        if told
        else None,
    )


def _stock_outs(known: pl.DataFrame) -> Section:
    found = stock_outs(known)
    rows = [
        (row["group"], f"{row['listed_days']:,}", f"{row['out_of_stock_days']:,}", f"{row['share']:.2%}")
        for row in found.iter_rows(named=True)
    ]
    return Section(
        "Out of stock",
        [
            (
                "Days on which the item was listed, nothing was left at the close and nothing was sold. Without the "
                "feed of stock every day counts as in stock."
            )
        ],
        ["Department", "Listed days", "Out-of-stock days", "Share"],
        rows,
    )


def _movers(known: pl.DataFrame) -> Section:
    moved = movers(known)
    rows = [
        (row["item_id"], row["store_id"], f"{row['before']:.2f}", f"{row['after']:.2f}", f"{row['change']:+.2f}")
        for row in moved.iter_rows(named=True)
    ]
    return Section(
        "What moved",
        [f"Units per available day in the last {MOVING_DAYS} days, and in the {MOVING_DAYS} days before."],
        ["Item", "Store", "Before", "After", "Change"],
        rows,
        Picture(
            movers_chart(moved),
            "The greatest changes of units per day",
            f"Bar chart of the {moved.height} series that changed most; the table has the values",
        )
        if moved.height
        else None,
    )


def _extremes(indices: pl.DataFrame, cut: str) -> str:
    known = indices.filter(cut=cut).drop_nulls("index").sort("index")
    if known.is_empty():
        return f"No {cut} is known."
    low, high = (_PERIODS[cut](known["period"][place]) for place in (0, -1))
    return f"By {cut}: highest {high} ({known['index'][-1]:.2f}), lowest {low} ({known['index'][0]:.2f})."


def _interval(row: dict[str, object], effect: str) -> str:
    value = row[effect]
    return "" if value is None else f"{value:.2f} ({row[f'{effect}_low']:.2f} to {row[f'{effect}_high']:.2f})"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}"
