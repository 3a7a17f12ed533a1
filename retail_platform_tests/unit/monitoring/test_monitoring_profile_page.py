"""The exploration page: whole, described and escaped, for good and for poor panels."""

import polars as pl
import pytest

from retail_platform.monitoring.profile_page import profile_page_html
from retail_platform_tests.pages import Page
from retail_platform_tests.panels import demand_panel, seasonal_panel

NASTY = """<script>alert("1")</script>' onerror='x$a_{"""


@pytest.fixture(scope="module")
def page() -> Page:
    panel = seasonal_panel(series=7, days=120).with_columns(
        pl.lit(NASTY).alias("category"), item_id=pl.concat_str("item_id", pl.lit(NASTY))
    )
    return Page(profile_page_html(f"Demand of {NASTY}", panel, facts=[("Level", NASTY)], notes=[NASTY]))


def test_every_part_is_there_with_its_picture_described(page: Page) -> None:
    for heading in ("How regularly items sell", "Seasons", "Price and promotions", "Out of stock", "What moved"):
        assert heading in page.text
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == 4
    assert all(len(picture["alt"] or "") > 40 for picture in pictures)
    assert "highest Saturday" in str(pictures[1]["alt"])
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in page.elements if tag == "th")
    assert ("html", {"lang": "en"}) in page.elements


def test_every_text_is_escaped_and_nothing_is_loaded(page: Page) -> None:
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert any(NASTY in text for text in page.text)
    references = [a.get("src") or a.get("href") or "data:" for _, a in page.elements]
    assert all(str(reference).startswith("data:") for reference in references)


@pytest.mark.parametrize("units", [[1.0], [0.0] * 3, [1.0, 0.0, 2.0] * 30], ids=["one day", "zeros", "short"])
def test_poor_panels_have_a_page_that_says_what_cannot_be_told(units: list[float]) -> None:
    text = Page(profile_page_html("Demand", demand_panel({("S1", "A"): units}))).text
    assert any("items, 5 are needed" in part for part in text)
