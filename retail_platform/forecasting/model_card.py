"""The card of a model version: what it is, what it learned from, how it did, why it forecasts what it does, its limits.

Here: the card as Markdown and as a self-contained HTML page. Not here: where they are kept (`orchestration/`), and
whether the version is in force, which changes after the card was written (`model.decisions`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from retail_platform.contracts import TABLES
from retail_platform.forecasting.explanation import Explanation
from retail_platform.forecasting.report import accuracy_rows, measure_names, page

SHOWN_FEATURES = 15
_DESCRIPTIONS = {
    column.name: column.description
    for table in ("features.demand_history", "features.demand")
    for column in TABLES[table].columns
}


@dataclass(frozen=True)
class ModelCard:
    """`facts`: label and value. `metrics`: the backtest's (model, cutoff, segment, metric, value). `against_naive`: the
    figures of the comparison with seasonal naive (`forecasting/challenge.py`). `explanation` is None where the model
    learns nothing.
    """

    version: str
    facts: Sequence[tuple[str, str]]
    verdict: str
    metrics: pl.DataFrame
    against_naive: pl.DataFrame
    explanation: Explanation | None
    features: Sequence[str]
    limits: Sequence[str]


def panel_facts(demand: pl.DataFrame) -> list[tuple[str, str]]:
    """Label and value of what a version learned from, for its card."""
    known = demand.filter(pl.col("units").is_not_null())
    first, last, units, promoted, out_of_stock = known.select(
        pl.col("date").min(),
        pl.col("date").max().alias("last"),
        pl.col("units").cast(pl.Float64).sum(),
        (pl.col("on_promotion") > 0).mean(),
        (~pl.col("in_stock")).mean().alias("out_of_stock"),
    ).row(0)
    return [
        ("Days", f"{first} to {last}"),
        ("Series", f"{known.select('store_id', 'item_id').n_unique():,}"),
        ("Stores, items", f"{known['store_id'].n_unique():,}, {known['item_id'].n_unique():,}"),
        ("Units sold", f"{units:,.0f}"),
        ("Days on promotion", f"{promoted:.1%}"),
        ("Days out of stock", f"{out_of_stock:.1%}"),
    ]


LIMITS = (
    (
        "It forecasts sales as they would be with stock on the shelf; how much was asked for on days that sold out, "
        "nobody knows."
    ),
    (
        "It knows of promotions, prices and events what was announced on the day of the forecast. What is announced "
        "later changes the forecast only when it is made anew."
    ),
    "A series with less history than a horizon block is long is forecast from what it has in common with others.",
    "It is meant for the panel that it was trained on: other stores, levels or horizons need a training of their own.",
    "Contributions of features are the model's account of itself, not effects of these features on demand.",
)
"""What holds for every version."""


def card_html(card: ModelCard) -> str:
    """The card as one HTML page that loads nothing; every text is escaped."""
    return page(
        "model_card.html",
        title=f"Model {card.version}",
        card=card,
        measures=measure_names(),
        accuracy=accuracy_rows(card.metrics),
        segments=_segments(card.against_naive),
        importance=_importance(card),
        series=_series(card),
    )


def card_markdown(card: ModelCard) -> str:
    """The card as Markdown; names that hold marks of Markdown or HTML are shown as they are."""
    parts = [
        f"# Model {_plain(card.version)}",
        _plain(card.verdict),
        "## What it is and what it learned from",
        _table(["", ""], card.facts),
        "## Accuracy in the backtest",
        "Mean over the cutoffs. Lower is better; bias is best near 0.",
        _table(
            ["Model", "Segment", *measure_names()],
            accuracy_rows(card.metrics),
        ),
        "## Against seasonal naive, by segment",
        _table(
            ["Segment", "WAPE", "Of seasonal naive", "Improvement", "Standard error"], _segments(card.against_naive)
        ),
    ]
    if card.explanation is not None:
        parts += [
            "## What moves its forecasts",
            _table(["Feature", "Share", "What it is"], _importance(card)),
        ]
    if _series(card):
        parts += [
            "## The series that are to sell most",
            _table(["Item", "Store", "Units per day", "How it comes about"], _series(card)),
        ]
    parts += [
        "## Features",
        _plain(", ".join(card.features) or "none"),
        "## Limits",
        "\n".join(f"- {_plain(limit)}" for limit in card.limits),
    ]
    return "\n\n".join(parts) + "\n"


def _segments(figures: pl.DataFrame) -> list[tuple[str, ...]]:
    return [
        (
            row["segment"],
            _share(row["challenger_value"]),
            _share(row["opponent_value"]),
            _share(row["improvement"]),
            _share(row["standard_error"]),
        )
        for row in figures.filter(pl.col("metric") == "wape").iter_rows(named=True)
    ]


def _importance(card: ModelCard) -> list[tuple[str, str, str]]:
    if card.explanation is None:
        return []
    return [
        (name, f"{share:.1%}", _DESCRIPTIONS.get(name, ""))
        for name, share in card.explanation.importance.head(SHOWN_FEATURES).iter_rows()
    ]


def _series(card: ModelCard) -> list[tuple[str, str, str, str]]:
    if card.explanation is None:
        return []
    return [
        (
            one.item_id,
            one.store_id,
            f"{one.mean:.2f}",
            " ".join(
                [
                    f"{one.baseline:.2f}",
                    *(f"x {factor.factor:.2f} ({factor.feature})" for factor in one.factors),
                    f"x {one.others:.2f} (others)",
                ]
            ),
        )
        for one in card.explanation.series
    ]


def _share(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2%}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"| {' | '.join(map(_plain, line)) if line is not lines[1] else ' | '.join(line)} |" for line in lines
    )


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: on one line, without marks."""
    shown = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", shown)
