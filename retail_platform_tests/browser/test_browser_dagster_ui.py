"""The platform as its users meet it: a real browser against the running Dagster UI with its daemon.

The tests share one running platform and stand in the order of a working day: look, receive data, click. Each waits
for what it needs, so that any of them can be run alone.
"""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from retail_platform.contracts import TABLES
from retail_platform.sources.landing import write_landing_file
from retail_platform_tests.browser.running_platform import RunningPlatform, chromium, wait_for
from retail_platform_tests.simulated_retailer import Retailer

pytestmark = pytest.mark.browser

GROUPS = ("source", "raw", "clean", "quarantine", "features", "model", "forecast", "monitoring")
SCIENCE_GROUPS = ("features", "model", "forecast")
PATIENCE = 300
"""Seconds that something may take on a machine that has much else to do."""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Without one the tests are skipped, but in CI they fail."""
    executable = chromium()
    if executable is None:
        missing = "no Chromium found; on Debian and Ubuntu: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def platform(finished: Retailer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A small simulated retailer, up to date, with the UI and its daemon running."""
    home = tmp_path_factory.mktemp("browser") / "home"
    shutil.copytree(finished.settings.home, home)
    platform = RunningPlatform(home)
    platform.start()
    yield platform
    platform.stop()


@pytest.fixture(scope="module")
def tab(browser: Browser, platform: RunningPlatform) -> Iterator[Page]:
    """The one tab of these tests: a new one would compile the UI's scripts anew."""
    context = browser.new_context(base_url=platform.address, viewport={"width": 1600, "height": 1000})
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    yield tab
    context.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """The tab, left empty: a page that is shown keeps a processor busy, which runs need."""
    yield tab
    tab.goto("about:blank")


def test_the_asset_graph_shows_every_group(page: Page) -> None:
    page.goto("/asset-groups")
    for group in GROUPS:
        expect(page.get_by_text(group, exact=True).first).to_be_visible(timeout=60_000)


def test_the_page_of_a_group_shows_its_tables_with_their_checks(page: Page) -> None:
    page.goto("/locations/retail_platform/asset-groups/forecast")
    for table in ("demand", "inventory_requirements"):
        expect(page.get_by_text(table, exact=True).first).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile(r"3 / 3 Passed"))).to_be_visible(timeout=60_000)


def test_an_asset_page_shows_owner_description_and_every_column_with_its_description(page: Page) -> None:
    contract = TABLES["forecast.demand"]
    page.goto("/assets/forecast/demand")
    expect(page.get_by_text(contract.owner.removeprefix("team:"), exact=True)).to_be_visible(timeout=60_000)
    expect(page.get_by_text(contract.description)).to_be_visible(timeout=60_000)
    for column in contract.columns:
        row = page.get_by_role("row").filter(has=page.get_by_text(column.name, exact=True))
        expect(row.filter(has_text=column.description).first).to_be_attached()


def test_an_asset_page_shows_the_chart_in_place(page: Page) -> None:
    page.goto("/assets/forecast/demand")
    chart = page.get_by_role("row").filter(has=page.get_by_text("chart", exact=True))
    chart.get_by_text("[Show Markdown]").click()
    picture = page.locator("img[src^='data:image/png']")
    expect(picture).to_be_visible(timeout=60_000)
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 0
    assert "Forecast" in (picture.get_attribute("alt") or "")


def test_an_asset_page_shows_its_checks_and_that_they_passed(page: Page) -> None:
    page.goto("/assets/forecast/demand?view=checks")
    for check in ("contract", "horizon_complete", "published_model_beats_naive"):
        expect(page.get_by_text(check, exact=True).first).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Succeeded", exact=True)).to_have_count(3, timeout=60_000)


def test_a_new_landing_file_becomes_forecasts_and_orders_without_a_click(platform: RunningPlatform) -> None:
    """A file brings the next day and a line that is a month late; nobody does anything more."""
    (last,) = platform.query_lake("SELECT max(business_date) AS day FROM clean.sales")
    last_day: date = last["day"]
    next_day, late_day = last_day + timedelta(days=1), last_day - timedelta(days=30)
    kept = (
        f"SELECT * FROM clean.sales WHERE business_date <= '{last_day}' AND business_date <> '{late_day}' ORDER BY ALL",
        f"SELECT * FROM forecast.demand WHERE forecast_origin <= '{last_day}' ORDER BY ALL",
        f"SELECT * FROM forecast.inventory_requirements WHERE forecast_origin <= '{last_day}' ORDER BY ALL",
        "SELECT * FROM model.registry ORDER BY ALL",
    )
    before = [platform.query_lake(statement) for statement in kept]
    earlier_runs = platform.tables_of_runs()
    sold, late = _drop_next_day(platform.home / "landing", last_day, late_day)
    of_the_late_day = (
        "SELECT units FROM features.demand "
        f"WHERE date = '{late_day}' AND store_id = '{late['store_id']}' AND item_id = '{late['item_id']}'"
    )
    (units_before,) = platform.query_lake(of_the_late_day)

    orders = f"SELECT 1 FROM forecast.inventory_requirements WHERE forecast_origin = '{next_day}' LIMIT 1"
    wait_for(f"orders from {next_day}", lambda: platform.query_lake(orders), seconds=PATIENCE, every=3)
    (new,) = platform.query_lake(
        f"SELECT count(*) AS rows, sum(quantity) AS units FROM clean.sales WHERE business_date = '{next_day}'"
    )
    assert (new["rows"], new["units"]) == (sold.height, sold["quantity"].sum())
    assert [platform.query_lake(statement) for statement in kept] == before
    (units_after,) = platform.query_lake(of_the_late_day)
    assert units_after["units"] == units_before["units"] + late["quantity"]
    runs = [tables for run, tables in platform.tables_of_runs().items() if run not in earlier_runs]
    assert runs[:3] == [{"raw.pos_sales"}, {"clean.sales"}, {"clean.sales"}]
    assert set().union(*runs[3:]) == {
        "features.demand",
        "features.demand_history",
        "forecast.demand",
        "forecast.inventory_requirements",
        "monitoring.data_drift",
    }, "what the new day concerns, and no new model"
    assert platform.days_of_commits("clean.sales", 2) == {f"{day}...{day}" for day in (next_day, late_day)}
    series = "SELECT DISTINCT store_id, item_id FROM forecast.demand WHERE forecast_origin = '{}' ORDER BY ALL"
    assert platform.query_lake(series.format(next_day)) == platform.query_lake(series.format(last_day))


def test_materialize_all_of_each_science_group_succeeds_from_a_click(page: Page, platform: RunningPlatform) -> None:
    runs = {group: _click_materialize_all(page, group) for group in SCIENCE_GROUPS}
    page.goto("about:blank")
    ends = {group: platform.finished_run(run_id, seconds=PATIENCE) for group, run_id in runs.items()}
    assert ends == dict.fromkeys(SCIENCE_GROUPS, "SUCCESS")


def test_changed_settings_are_taken_on_and_a_code_server_that_dies_is_replaced(platform: RunningPlatform) -> None:
    (platform.home / "retail.toml").write_text('[feeds.pos_sales.extra_columns]\ncashier = "text"\n')
    wait_for("the new column", lambda: "cashier" in platform.columns("raw.pos_sales"), seconds=PATIENCE)
    known_at = platform.updated_at()
    for server in platform.code_servers():
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGKILL)

    def is_loaded_again() -> bool:
        # Meanwhile the UI may have noticed that there is none, which is news as well.
        return platform.updated_at() > known_at and "cashier" in platform.columns("raw.pos_sales")

    wait_for("another code server", is_loaded_again, seconds=PATIENCE)


def test_stopping_the_command_ends_every_process_that_it_started(platform: RunningPlatform) -> None:
    assert platform.stop() == []


def _click_materialize_all(page: Page, group: str) -> str:
    """Click on the page of a group, and return the beginning of the id of the run that this launched."""
    page.goto(f"/locations/retail_platform/asset-groups/{group}")
    page.get_by_role("button", name="Materialize all").click()
    launched = page.get_by_text(re.compile(r"Launched run [0-9a-f]{8}"))
    expect(launched).to_be_visible(timeout=60_000)
    return launched.inner_text().split()[2]


def _drop_next_day(landing: Path, last_day: date, late_day: date) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Deliver the last day's sales once more as those of the day after, with one line more, of a day long past, and
    return the rows of the new day and that line.
    """
    files = sorted((landing / "pos_sales").glob("simulated-*.parquet"))
    sales = pl.concat([pl.read_parquet(file) for file in files])
    new = sales.filter(business_date=last_day).with_columns(business_date=last_day + timedelta(days=1))
    late = new.head(1).with_columns(pl.lit("late").alias("transaction_id"), business_date=late_day)
    write_landing_file(landing, "pos_sales", f"sales_{last_day + timedelta(days=1)}.csv", pl.concat([new, late]))
    return new, late.row(0, named=True)
