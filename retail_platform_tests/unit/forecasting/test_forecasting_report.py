"""The report page and its pictures."""

from datetime import date

import polars as pl

from retail_platform.contracts.forecast import QUANTILES
from retail_platform.forecasting.charts import backtest_chart, forecast_chart
from retail_platform.forecasting.report import Picture, forecast_report_html
from retail_platform_tests.pages import Page
from retail_platform_tests.panels import seasonal_panel

PNG = b"\x89PNG\r\n\x1a\n"
METRICS = pl.DataFrame(
    [
        (model, date(2017, 5, day), segment, metric, 0.25)
        for model in ("lightgbm", "seasonal_naive")
        for day in (1, 29)
        for segment in ("all", "horizon 15-28", "horizon 8-14", "horizon 1-7")
        for metric in ("wape", "bias", "rmsse")
    ],
    schema=["model", "cutoff", "segment", "metric", "value"],
    orient="row",
)


def page(name: str = "SOUP") -> Page:
    return Page(
        forecast_report_html(
            f"Forecast of {name}",
            facts=[("Forecast origin", "2017-12-31"), ("Largest item", name)],
            metrics=METRICS,
            pictures=[Picture(PNG, f"Caption of {name}", f"Description of {name}")],
            notes=[f"Note on {name}"],
        )
    )


def test_every_text_is_escaped() -> None:
    nasty = """<script>alert("1")</script>' onerror='x"""
    found = page(nasty)
    assert not [tag for tag, _ in found.elements if tag == "script"]
    assert not [attributes for _, attributes in found.elements if "onerror" in attributes]
    assert f"Note on {nasty}" in found.text


def test_the_page_loads_nothing_from_elsewhere() -> None:
    references = [a.get("src") or a.get("href") or "data:" for _, a in page().elements]
    assert all(str(reference).startswith("data:") for reference in references)


def test_pictures_are_described_and_table_cells_have_headings() -> None:
    elements = page().elements
    assert ("html", {"lang": "en"}) in elements
    assert [a["alt"] for tag, a in elements if tag == "img"] == ["Description of SOUP"]
    assert all(a.get("scope") in ("row", "col") for tag, a in elements if tag == "th")


def test_accuracy_is_shown_by_model_from_near_to_far() -> None:
    text = [part for part in page().text if part]
    segments = [part for part in text if part == "all" or part.startswith("horizon")]
    assert segments[::2] == ["all", "horizon 1-7", "horizon 8-14", "horizon 15-28"]
    assert "25.0%" in text
    assert "not defined" in text


def test_charts_are_pictures_and_names_with_dollar_signs_are_no_formulas() -> None:
    demand = seasonal_panel(series=3, days=60).with_columns(pl.lit("$a_{b$").alias("item_id").cast(pl.String))
    demand = demand.unique(["store_id", "item_id", "date"])
    days = demand.filter(pl.col("units").is_null())
    forecast = days.select("store_id", "item_id", "date", mean=pl.lit(3.0)).with_columns(
        pl.lit(3.0 + 4 * (level - 0.5)).alias(name) for name, level in QUANTILES.items()
    )
    assert forecast_chart(demand, forecast).startswith(PNG)
    assert forecast_chart(demand, forecast, series=1).startswith(PNG)
    assert backtest_chart(METRICS).startswith(PNG)
