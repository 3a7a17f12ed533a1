"""Pictures of the exploration page, as PNG bytes.

Here: what is drawn and how. Not here: the figures (`features/profile.py`, `features/effects.py`) and the page around
the pictures (`monitoring/profile_page.py`), which says in words and tables what they show.
"""

import calendar
from typing import TYPE_CHECKING

import polars as pl

from retail_platform.features.profile import PATTERNS, SPARSE_INTERVAL, VARIABLE_SIZE
from retail_platform.forecasting.charts import EXPECTED, NAIVE, SOLD, as_png, plain_axes, plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = {"smooth": "o", "erratic": "^", "intermittent": "s", "lumpy": "D"}
_COLOURS = {"smooth": EXPECTED, "erratic": NAIVE, "intermittent": "#3d7a3d", "lumpy": "#7a3d7a"}


def pattern_chart(patterns: pl.DataFrame) -> bytes:
    """Each series by the interval between its sales and the variation of their size, with the four classes."""
    figure = _figure(8, 4)
    axes = figure.add_subplot(1, 1, 1)
    for pattern in PATTERNS:
        own = patterns.filter(pattern=pattern)
        axes.scatter(
            own["interval"],
            own["variation"],
            s=14,
            alpha=0.6,
            marker=_MARKERS[pattern],
            color=_COLOURS[pattern],
            label=f"{pattern} ({own.height:,})",
        )
    axes.axvline(SPARSE_INTERVAL, color="#888888", lw=0.8, ls="--")
    axes.axhline(VARIABLE_SIZE, color="#888888", lw=0.8, ls="--")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value in {2, 3, 5, 20, 30, 50} else "")
    axes.set_xlabel("mean days from sale to sale", fontsize=8)
    axes.set_ylabel("squared variation of units sold", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    plain_axes(axes)
    axes.tick_params(which="minor", labelsize=8)
    return as_png(figure)


def season_chart(indices: pl.DataFrame) -> bytes:
    """Demand by weekday and by month, relative to the mean."""
    figure = _figure(10, 3)
    names = {"weekday": list(calendar.day_abbr), "month": list(calendar.month_abbr)[1:]}
    for place, (cut, labels) in enumerate(names.items(), start=1):
        own = indices.filter(cut=cut)
        axes = figure.add_subplot(1, 2, place)
        axes.bar([labels[period - 1] for period in own["period"]], own["index"], color=EXPECTED, width=0.7)
        axes.axhline(1, color=SOLD, lw=0.8)
        axes.set_title(f"by {cut}", fontsize=9, loc="left")
        axes.set_ylabel("relative to the mean", fontsize=8)
        plain_axes(axes)
    return as_png(figure)


def weeks_chart(weeks: pl.DataFrame) -> bytes:
    """Units, days on promotion and days out of stock, week by week."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import PercentFormatter

    figure = _figure(10, 5)
    drawn = (
        ("units", "units per week", SOLD),
        ("on_promotion", "days on promotion", NAIVE),
        ("out_of_stock", "days out of stock", EXPECTED),
    )
    for place, (column, title, colour) in enumerate(drawn, start=1):
        axes = figure.add_subplot(3, 1, place)
        axes.plot(weeks["week"].to_list(), weeks[column], color=colour, lw=1.2)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        if column != "units":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        plain_axes(axes)
    return as_png(figure)


def effects_chart(effects: pl.DataFrame) -> bytes:
    """Price elasticity and promotion uplift of each group with their intervals."""
    figure = _figure(11, 1.2 + 0.28 * max(effects.height, 3))
    drawn = (("elasticity", "price elasticity", 0.0), ("uplift", "demand on promotion / without", 1.0))
    for place, (effect, title, nothing) in enumerate(drawn, start=1):
        axes = figure.add_subplot(1, 2, place)
        _intervals(axes, effects.filter(pl.col(effect).is_not_null()), effect)
        axes.axvline(nothing, color=SOLD, lw=0.8)
        axes.set_title(title, fontsize=9, loc="left")
        plain_axes(axes)
        axes.grid(axis="x", color="#e0e0e0", lw=0.6)
    return as_png(figure)


def movers_chart(moved: pl.DataFrame) -> bytes:
    """The greatest changes of units per day, up and down."""
    figure = _figure(8, 0.8 + 0.3 * max(moved.height, 2))
    axes = figure.add_subplot(1, 1, 1)
    ordered = moved.sort("change")
    labels = [plain_text(f"{item}, store {store}") for store, item in ordered.select("store_id", "item_id").iter_rows()]
    colours = [EXPECTED if change > 0 else NAIVE for change in ordered["change"]]
    axes.barh(labels, ordered["change"], color=colours, height=0.7)
    axes.axvline(0, color=SOLD, lw=0.8)
    axes.set_xlabel("change of units per day", fontsize=8)
    plain_axes(axes)
    return as_png(figure)


def _intervals(axes: "Axes", known: pl.DataFrame, effect: str) -> None:
    rows = list(range(known.height, 0, -1))
    low, value, high = (known[name] for name in (f"{effect}_low", effect, f"{effect}_high"))
    axes.errorbar(value, rows, xerr=[value - low, high - value], fmt="o", ms=4, color=EXPECTED, ecolor=EXPECTED, lw=1.2)
    axes.set_yticks(rows, [plain_text(name) for name in known["group"]])


def _figure(width: float, height: float) -> "Figure":
    """A figure with room for names of any length beside the bars."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
