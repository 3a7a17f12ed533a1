"""The forecast report: one self-contained HTML page that a planner can read or forward.

Here: which figures it shows and in which order. Not here: the pictures (`forecasting/charts.py`) and where the page is
kept.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

_MEASURES = {
    "wape": ("WAPE", "{:.1%}"),
    "bias": ("Bias", "{:+.1%}"),
    "rmsse": ("RMSSE", "{:.3f}"),
    "mase": ("MASE", "{:.3f}"),
    "pinball": ("Pinball loss", "{:.3f}"),
    "coverage_90": ("Within q05 to q95", "{:.1%}"),
    "not_above_q95": ("Not above q95", "{:.1%}"),
}


@dataclass(frozen=True)
class Picture:
    """A chart with its caption and, for those who cannot see it, what it shows in words."""

    png: bytes
    caption: str
    description: str

    @property
    def source(self) -> str:
        return f"data:image/png;base64,{b64encode(self.png).decode()}"


def forecast_report_html(
    title: str,
    *,
    facts: Sequence[tuple[str, str]],
    metrics: pl.DataFrame,
    pictures: Sequence[Picture] = (),
    notes: Sequence[str] = (),
) -> str:
    """Render the report: facts, accuracy by model over the backtest's cutoffs, pictures, notes.

    `metrics` are a backtest's (model, cutoff, segment, metric, value). Every text is escaped; the page loads nothing.
    """
    return page(
        "forecast_report.html",
        title=title,
        facts=facts,
        measures=measure_names(),
        accuracy=accuracy_rows(metrics),
        caption=_caption(metrics["cutoff"].n_unique()),
        pictures=pictures,
        notes=notes,
    )


def page(template: str, *, room: str = "forecasting", **values: Any) -> str:
    """Render a template of a room in the layout that all pages share. Every text is escaped."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    rooms = dict.fromkeys([room, "forecasting"])
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(f"retail_platform.{name}") for name in rooms]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _caption(cutoffs: int) -> str:
    return (
        f"Mean over {cutoffs} past forecast origin{'' if cutoffs == 1 else 's'}. Lower is better; bias is best near 0, "
        "and the two shares of days at the right near 90 % and 95 %, or above where many days sell nothing."
    )


def measure_names() -> list[str]:
    """Headings of the measures, in the order of `accuracy_rows`."""
    return [label for label, _ in _MEASURES.values()]


def accuracy_rows(metrics: pl.DataFrame) -> list[tuple[str, ...]]:
    """Model, segment and each of the measures as text, mean over cutoffs."""
    means = metrics.group_by("segment", "model", "metric", maintain_order=True).agg(pl.col("value").mean())
    values = {(row["segment"], row["model"], row["metric"]): row["value"] for row in means.iter_rows(named=True)}
    segments = sorted({segment for segment, _, _ in values}, key=_with_numbers_as_numbers)
    models = list(dict.fromkeys(model for _, model, _ in values))
    return [
        (
            model.replace("_", " "),
            segment,
            *(_shown(values.get((segment, model, measure)), form) for measure, (_, form) in _MEASURES.items()),
        )
        for segment in segments
        for model in models
    ]


def _with_numbers_as_numbers(name: str) -> list[str | int]:
    """Sort key that puts 'horizon 8-14' before 'horizon 15-28'."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _shown(value: float | None, form: str) -> str:
    return "not defined" if value is None else form.format(value)
