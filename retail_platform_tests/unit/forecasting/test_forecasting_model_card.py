"""The model card and the explanations on it: they add up, say what they must, and escape every name."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from retail_platform.features.history import build_history
from retail_platform.forecasting.explanation import contributions, explain
from retail_platform.forecasting.model_card import LIMITS, ModelCard, card_html, card_markdown, panel_facts
from retail_platform.forecasting.models import LightGbm, SeasonalNaive, fit_lightgbm
from retail_platform.forecasting.training_set import FEATURES
from retail_platform.settings import ForecastSettings
from retail_platform_tests.pages import Page
from retail_platform_tests.panels import START, seasonal_panel

NASTY = """<script>alert("1")</script>|`x`*b*_[a](b)$a'onerror='x"""
SETTINGS = ForecastSettings(trees=30, leaves=7, learning_rate=0.2, threads=1, horizon_blocks=(7, 14), horizon_days=14)
PANEL = seasonal_panel(series=8, days=150, ahead=14).with_columns(
    item_id=pl.col("item_id").replace({"I07": NASTY}),
    # Every other week twice as much is sold, on promotion.
    on_promotion=(pl.col("date").dt.week() % 2).cast(pl.Float32),
)
PANEL = PANEL.with_columns(units=(pl.col("units") * (1 + pl.col("on_promotion"))).cast(pl.Float32))
HISTORY = build_history(PANEL)
LAST = START + timedelta(days=149)


@pytest.fixture(scope="module")
def model() -> LightGbm:
    return fit_lightgbm(PANEL, HISTORY, LAST, SETTINGS)


def test_contributions_and_baseline_add_up_to_the_forecast(model: LightGbm) -> None:
    forecast = model.predict_mean(PANEL, HISTORY, LAST)
    found = contributions(model, PANEL, HISTORY, LAST, forecast)
    total = found.rows.with_columns(total=pl.Series(np.exp(found.baseline + found.values.sum(axis=1))))
    both = forecast.join(total, on=["store_id", "item_id", "date"])
    assert both.height == forecast.height
    assert (both["mean"] / both["total"]).to_list() == pytest.approx([1.0] * forecast.height, rel=1e-6)


def test_the_largest_series_are_explained_by_what_sells(model: LightGbm) -> None:
    found = explain(model, PANEL, HISTORY, LAST, series=3)
    assert found is not None
    assert found.importance["share"].sum() == pytest.approx(1.0)
    assert found.importance["feature"].n_unique() == len(FEATURES)
    assert "on_promotion" in found.importance["feature"].head(8)
    assert [one.item_id for one in found.series] == [NASTY, "I06", "I05"]
    for one in found.series:
        product = one.baseline * np.prod([factor.factor for factor in one.factors]) * one.others
        assert product == pytest.approx(one.mean)
        assert max(factor.factor for factor in one.factors) > 1, "they sell more than the average"


def test_simple_rules_have_nothing_to_explain() -> None:
    assert explain(SeasonalNaive(14), PANEL, HISTORY, LAST) is None


@pytest.fixture(scope="module")
def card(model: LightGbm) -> ModelCard:
    metrics = pl.DataFrame(
        [
            (name, date(2017, 5, 1), segment, metric, 0.25)
            for name in ("lightgbm", "seasonal_naive")
            for segment in ("all", "horizon 1-7")
            for metric in ("wape", "bias")
        ],
        schema=["model", "cutoff", "segment", "metric", "value"],
        orient="row",
    )
    figures = pl.DataFrame(
        {
            "segment": ["all", f"department {NASTY}"],
            "metric": ["wape", "wape"],
            "opponent_value": [0.3, 0.4],
            "challenger_value": [0.25, 0.45],
            "improvement": [0.05, -0.05],
            "standard_error": [0.01, None],
        }
    )
    explanation = explain(model, PANEL, HISTORY, LAST)
    return ModelCard("v1", panel_facts(PANEL), f"beats {NASTY}", metrics, figures, explanation, FEATURES, LIMITS)


def test_the_page_has_every_part_and_escapes_every_name(card: ModelCard) -> None:
    page = Page(card_html(card))
    assert not [tag for tag, _ in page.elements if tag in {"script", "img", "link"}]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert NASTY in page.text
    assert f"department {NASTY}" in page.text
    for words in ("Series", "8", f"{START} to {LAST}", "25.0%", "5.00%", "not defined", "on_promotion", *LIMITS):
        assert words in page.text, words
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.elements if tag == "th")


def test_the_markdown_has_every_part_and_no_name_becomes_a_mark(card: ModelCard) -> None:
    text = card_markdown(card)
    for heading in (
        "What it is and what it learned from",
        "Accuracy in the backtest",
        "What moves its forecasts",
        "Limits",
    ):
        assert f"\n## {heading}\n" in text
    assert "<script" not in text
    assert r"&lt;script&gt;alert(" in text
    assert r"\|\`x\`\*b\*\_\[a\]" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {line.replace(r"\|", "").count("|") for line in tables}
    assert widths == {3, 4, 5, 6, 10}


def test_a_card_of_a_simple_rule_has_no_explanation(card: ModelCard) -> None:
    simple = ModelCard("v2", card.facts, "", card.metrics, card.against_naive, None, (), LIMITS)
    assert "What moves its forecasts" not in card_html(simple)
    assert "What moves its forecasts" not in card_markdown(simple)
