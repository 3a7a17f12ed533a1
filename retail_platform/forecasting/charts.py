"""Pictures of forecasts and of their accuracy, as PNG bytes.

Here: what is drawn and how. Not here: the report around the pictures (`forecasting/report.py`).
"""

from io import BytesIO
from typing import TYPE_CHECKING

import polars as pl

from retail_platform.features.dense import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOLD, EXPECTED, NAIVE = "#1a1a1a", "#0b5fa5", "#b25000"
_MODEL_COLOURS = {"lightgbm": EXPECTED, "seasonal_naive": NAIVE, "moving_average": "#6b6b6b"}
_LINES = {"lightgbm": "-", "seasonal_naive": "--", "moving_average": ":"}


def forecast_chart(demand: pl.DataFrame, forecast: pl.DataFrame, *, series: int = 6, days_before: int = 56) -> bytes:
    """Small multiples of the series with the largest forecasts: units sold, expected units, and the bands from q25 to
    q75 and from q05 to q95.

    `demand` holds store_id, item_id, date and units (features.demand); where it knows units of forecast days, as in a
    backtest, they are drawn too. `days_before` days lead up to the first forecast day.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    largest = (
        forecast.group_by(SERIES)
        .agg(total=pl.col("mean").sum())
        .sort("total", *SERIES, descending=[True, False, False])
        .head(series)
    )
    columns = 2 if largest.height > 1 else 1
    rows = max(1, -(-largest.height // columns))
    figure = _figure_of_panels(rows, columns, width=11 / columns, height=2.4)
    first_day = forecast["date"].min()
    for place, (store, item) in enumerate(largest.select(SERIES).iter_rows(), start=1):
        own = (pl.col("store_id") == store) & (pl.col("item_id") == item)
        ahead = forecast.filter(own).sort("date")
        sold = (
            demand.filter(own & pl.col("units").is_not_null())
            .filter((pl.col("date") - first_day).dt.total_days() >= -days_before)
            .filter(pl.col("date") <= ahead["date"].max())
            .sort("date")
        )
        axes = figure.add_subplot(rows, columns, place)
        days = ahead["date"].to_list()
        axes.fill_between(days, ahead["q05"], ahead["q95"], color=EXPECTED, alpha=0.15, lw=0, label="q05 to q95")
        axes.fill_between(days, ahead["q25"], ahead["q75"], color=EXPECTED, alpha=0.3, lw=0, label="q25 to q75")
        axes.plot(sold["date"].to_list(), sold["units"], color=SOLD, lw=0.9, label="sold")
        axes.plot(days, ahead["mean"], color=EXPECTED, lw=1.8, label="expected")
        axes.set_title(f"{plain_text(item)}, store {plain_text(store)}", fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("units per day", fontsize=8)
        locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        plain_axes(axes)
        if place == 1:
            axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper left")
    return as_png(figure)


def backtest_chart(metrics: pl.DataFrame) -> bytes:
    """WAPE of each model at each cutoff, from the metrics of a backtest (model, cutoff, segment, metric, value); the
    mean over the shards where there are several."""
    wape = (
        metrics.filter((pl.col("segment") == "all") & (pl.col("metric") == "wape"))
        .group_by("model", "cutoff")
        .agg(pl.col("value").mean())
        .sort("cutoff")
    )
    figure = _figure_of_panels(1, 1, width=8, height=3.2)
    axes = figure.add_subplot(1, 1, 1)
    cutoffs = [str(day) for day in wape["cutoff"].unique().sort()]
    for model in wape["model"].unique(maintain_order=True).sort():
        own = wape.filter(pl.col("model") == model)
        axes.plot(
            [cutoffs.index(str(day)) for day in own["cutoff"]],
            own["value"],
            color=_MODEL_COLOURS.get(model),
            ls=_LINES.get(model, "-."),
            marker="o",
            label=model.replace("_", " "),
        )
    axes.set_xticks(range(len(cutoffs)), cutoffs)
    axes.set_xlim(-0.3, len(cutoffs) - 0.7)
    axes.margins(y=0.15)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("last day that the model had seen", fontsize=8)
    axes.set_ylabel("WAPE (lower is better)", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    plain_axes(axes)
    return as_png(figure)


def _figure_of_panels(rows: int, columns: int, *, width: float, height: float) -> "Figure":
    """A figure of panels of this size, in inches, with room for a title, for dates and a label below, and beside for
    numbers of six digits; Matplotlib writes greater ones in units of a million. To let it find the room takes as long
    as the drawing.
    """
    from matplotlib.figure import Figure

    left, right, top, bottom = 0.8, 0.15, 0.3, 0.55
    figure_width, figure_height = columns * width, rows * height
    figure = Figure(figsize=(figure_width, figure_height))
    figure.subplots_adjust(
        left=left / figure_width,
        right=1 - right / figure_width,
        top=1 - top / figure_height,
        bottom=bottom / figure_height,
        wspace=(left + right) / (width - left - right),
        hspace=(top + bottom) / (height - top - bottom),
    )
    return figure


def plain_axes(axes: "Axes") -> None:
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#e0e0e0", lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def plain_text(text: str) -> str:
    """Names are shown as they are: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")


def as_png(figure: "Figure") -> bytes:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110, metadata={"Software": None})
    return picture.getvalue()
