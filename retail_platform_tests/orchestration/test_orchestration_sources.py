"""Configured sources in the asset graph: asked before landing files are taken in, borne when down, asked when due."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from retail_platform.cleaning import References, clean_feed
from retail_platform.doctor import _sources
from retail_platform.orchestration import sensors
from retail_platform.orchestration.assets.sources import source_specs
from retail_platform.orchestration.extraction import bring_in
from retail_platform.orchestration.runner import materialize, words_of_intake
from retail_platform.settings import FredSource, OpenMeteoSource
from retail_platform_tests.misbehaving_server import Answer, Asked, MisbehavingServer, misbehaving_server
from retail_platform_tests.orchestration.test_orchestration_sensors import Ticks, selected
from retail_platform_tests.simulated_retailer import Retailer, run_in_process

VARIABLES = ("temperature_2m_mean", "temperature_2m_min", "temperature_2m_max", "precipitation_sum")
RAW_WEATHER = [dg.AssetKey(["raw", "weather"])]
FAST = {"attempts": 2, "first_wait_seconds": 0.01, "longest_wait_seconds": 0.1, "timeout_seconds": 10}


def weather_of(asked: Asked, temperature: float = 10.0) -> Any:
    """The first day asked for, with one figure for everything."""
    units = {variable: "mm" if variable == "precipitation_sum" else "°C" for variable in VARIABLES}
    daily = {"time": [asked.query["start_date"]], **{variable: [temperature] for variable in VARIABLES}}
    return {"daily_units": units, "daily": daily}


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with misbehaving_server(weather_of) as running:
        yield running


@pytest.fixture
def retailer(new_retailer: Retailer, server: MisbehavingServer) -> Retailer:
    """A retailer whose weather comes from the server."""
    today = datetime.now(UTC).date()
    source = OpenMeteoSource.model_validate(
        {
            "kind": "open_meteo",
            "start": today - timedelta(days=7),
            "regions": {"CA": {"latitude": 36.7, "longitude": -119.8, "time_zone": "America/Los_Angeles"}},
            "archive_url": f"{server.url}/archive",
            "forecast_url": f"{server.url}/forecast",
            **FAST,
        }
    )
    return new_retailer.with_settings(sources={"weather": source})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def materialize_raw_weather(retailer: Retailer, instance: dg.DagsterInstance) -> dict[str, Any]:
    """One run of raw.weather and what it says of itself; a run that failed says why."""
    result = run_in_process(retailer, instance, RAW_WEATHER)
    events = [event for event in result.get_asset_materialization_events() if event.asset_key == RAW_WEATHER[0]]
    if events:
        return {name: value.value for name, value in events[0].materialization.metadata.items()}
    failure = next(event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    return {"failed": failure.step_failure_data.user_failure_data.description}


def test_a_run_goes_on_with_the_last_data_while_a_service_is_down_and_says_that_it_is_stale(
    retailer: Retailer, server: MisbehavingServer, instance: dg.DagsterInstance
) -> None:
    first = materialize_raw_weather(retailer, instance)
    assert (first["new_rows"], "stale_sources" in first) == (2, False)
    server.responder = lambda _: Answer(status=503)
    for _ in range(2):
        stale = materialize_raw_weather(retailer, instance)
        assert stale["stale_sources"] == ["weather"]
        assert stale["dagster/row_count"] == 2
    (alert,) = retailer.lake.read("monitoring.alerts").rows(named=True)
    assert (alert["severity"], alert["subject"]) == ("warning", "source weather")
    assert "does not answer: status 503, in 2 attempts" in alert["message"]
    assert "last extract 20" in alert["message"]

    required = retailer.settings.sources["weather"].model_copy(update={"required": True})
    failed = materialize_raw_weather(retailer.with_settings(sources={"weather": required}), instance)
    assert "does not answer" in failed["failed"]


def test_the_command_line_hears_what_became_of_each_source(retailer: Retailer) -> None:
    retailer.lake.prepare()
    began = datetime.now(UTC)
    assert words_of_intake(retailer.settings, ["weather"], began) == []
    materialize(retailer.lake, 'key:"raw/weather"', None, None, lambda _: None)
    said = ["source weather: 2 new rows in 1 files"]
    assert words_of_intake(retailer.settings, ["weather", "items"], began) == said
    assert words_of_intake(retailer.settings, ["weather", "items"], datetime.now(UTC)) == []


def test_revisions_are_kept_side_by_side_by_the_day_they_were_published(
    retailer: Retailer, server: MisbehavingServer
) -> None:
    retailer.lake.prepare()
    for temperature in (10.0, 12.0):
        server.responder = lambda asked, figure=temperature: weather_of(asked, figure)
        result, (report,) = bring_in(retailer.lake, "weather", "test")
        assert (result.rows, report.rows, report.problem) == (2, 2, None)
    raw = retailer.lake.read("raw.weather")
    now = datetime.now(UTC).replace(tzinfo=None)
    cleaned = clean_feed("weather", raw, references=References(), now=now, today=now.date(), customer_key=None)
    # Both were published today, so that the later one supersedes the earlier one, visibly.
    assert cleaned.clean["temperature_mean"].to_list() == [12.0, 12.0]
    assert cleaned.duplicates["kind"].to_list() == ["superseded", "superseded"]
    yesterday = raw.with_columns(
        published_on=(raw["temperature_mean"] == "10.0").replace_strict({True: "2026-01-01", False: "2026-01-02"})
    )
    cleaned = clean_feed("weather", yesterday, references=References(), now=now, today=now.date(), customer_key=None)
    assert sorted(cleaned.clean["temperature_mean"]) == [10.0, 10.0, 12.0, 12.0]


def test_a_source_is_asked_for_once_in_each_of_its_intervals(
    retailer: Retailer, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = datetime(2026, 3, 1, 12, 1, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return clock.astimezone(tz)

    monkeypatch.setattr(sensors, "datetime", Clock)
    tick = Ticks(sensors.sources_due, retailer, instance)
    (first,) = tick()
    assert selected(first) == {"raw.weather"}
    assert tick() == []
    (repeated,) = Ticks(sensors.sources_due, retailer, instance)()
    assert repeated.run_key == first.run_key, "a lost cursor asks for nothing twice"
    clock += timedelta(minutes=58)
    assert tick() == []
    clock += timedelta(minutes=1)
    (second,) = tick()
    assert second.run_key != first.run_key
    assert Ticks(sensors.sources_due, retailer.with_settings(sources={}), instance)() == []


def test_doctor_tells_of_each_source_whether_it_answers(
    retailer: Retailer, server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FRED_KEY", raising=False)
    series = {"unemployment_rate": {"id": "UNRATE", "unit": "Percent"}}
    economy = FredSource.model_validate(
        {"kind": "fred", "series": series, "api_key_variable": "FRED_KEY", "url": server.url, **FAST}
    )
    both = retailer.with_settings(sources={**retailer.settings.sources, "economy": economy})
    weather, figures = _sources(both.settings)
    assert (weather.what, weather.fine, weather.found) == ("source weather", True, "1 day of CA")
    assert (figures.what, figures.fine) == ("source economy", False)
    assert "FRED_KEY is not set" in figures.remedy
    server.responder = lambda _: Answer(status=500)
    server.asked.clear()
    assert not _sources(retailer.settings)[0].fine
    assert len(server.asked) == 1, "doctor does not wait for another attempt"


def test_the_configured_source_is_named_where_lineage_begins(retailer: Retailer, server: MisbehavingServer) -> None:
    specs = {spec.key.to_user_string(): spec for spec in source_specs(retailer.settings)}
    assert specs["source/weather_service"].metadata["source weather"] == (
        f"weather of CA from {server.url}/archive and {server.url}/forecast"
    )
    assert set(specs["source/pricing"].metadata) == {"landing_folder"}
