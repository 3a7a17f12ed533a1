"""The card of a model version: what goes into it, and where it lies.

Here: the files of the card in the version's folder, and the copy in reports/ of the version in force. Not here: what a
card shows (`forecasting/model_card.py`).
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from retail_platform.contracts.forecast import NAIVE
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.champions import Evidence
from retail_platform.orchestration.partitions import WHOLE_PANEL
from retail_platform.orchestration.simulated import notes_on_simulated
from retail_platform.settings import Settings

if TYPE_CHECKING:
    from retail_platform.forecasting.training import Gate, TrainedModel

MARKDOWN, HTML = "card.md", "card.html"


def card_files(
    lakehouse: Lakehouse, model: "TrainedModel", evidence: Evidence, manifest: dict[str, Any], gate: "Gate"
) -> dict[str, str]:
    """The card of a version that was just trained, as text by file name."""
    from retail_platform.forecasting.challenge import compare
    from retail_platform.forecasting.explanation import explain
    from retail_platform.forecasting.model_card import LIMITS, ModelCard, card_html, card_markdown, panel_facts
    from retail_platform.forecasting.training_set import FEATURES, horizon_blocks
    from retail_platform.forecasting.trials import without_trials

    settings, errors = lakehouse.settings, evidence.forecasts
    own, naive = (errors.filter(pl.col("model") == name) for name in (model.name, NAIVE))
    card = ModelCard(
        version=manifest["model_version"],
        facts=[
            ("Kind", model.name.replace("_", " ")),
            ("Shard", manifest["shard"]),
            ("Trained until", str(model.trained_until)),
            ("Lake snapshot", str(manifest["lake_snapshot"])),
            *panel_facts(evidence.demand),
            ("Settings", ", ".join(f"{name} {value}" for name, value in manifest["parameters"].items())),
            ("Code", manifest["code_version"]),
            ("Libraries", ", ".join(f"{n} {v}" for n, v in manifest["environment"]["libraries"].items())),
        ],
        verdict=gate.text,
        metrics=without_trials(evidence.metrics),
        against_naive=compare(own, naive, evidence.demand, horizon_blocks(settings.forecast), settings.champion),
        explanation=explain(
            model.mean_model, evidence.demand, evidence.history, model.trained_until, seed=settings.forecast.seed
        ),
        features=FEATURES if model.name == "lightgbm" else (),
        limits=[*LIMITS, *notes_on_simulated(lakehouse)],
    )
    return {MARKDOWN: card_markdown(card), HTML: card_html(card)}


def card_of(settings: Settings, version: str) -> Path | None:
    """The page of a version's card, where it has one."""
    place = settings.models / version / HTML
    return place if place.is_file() else None


def show_card(settings: Settings, version: str, shard: str) -> Path | None:
    """Put the card of the version in force into reports/, and return its place there; none where it has no card."""
    card = card_of(settings, version)
    if card is None:
        return None
    settings.reports.mkdir(parents=True, exist_ok=True)
    suffix = "" if shard == WHOLE_PANEL else f"-{shard}"
    return Path(shutil.copyfile(card, settings.reports / f"model_card{suffix}.html"))
