"""Open-Meteo and FRED as sources, without a lake: units, pages, revisions, and what was there before."""

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retail_platform.settings import FredSource, OpenMeteoSource
from retail_platform.sources import fred, open_meteo
from retail_platform.sources.extracts import Landed, SourceError, landed_extracts
from retail_platform_tests.extracts import taken_in_from_landing
from retail_platform_tests.misbehaving_server import Asked, MisbehavingServer, misbehaving_server

TODAY = date(2026, 3, 20)
FAST = {"attempts": 2, "first_wait_seconds": 0.01, "longest_wait_seconds": 0.1, "timeout_seconds": 5}
CPI = {"id": "CPIAUCSL", "unit": "Index 1982-1984=100"}


class Weather:
    """A weather service whose temperature of a day is its day of the month."""

    def __init__(self, server: MisbehavingServer, home: Path) -> None:
        self.server, self.home = server, home
        self.units = {"temperature": "°C", "precipitation": "mm"}
        self.revised: dict[str, float] = {}
        server.responder = self.answer

    def answer(self, asked: Asked) -> Any:
        first, last = (date.fromisoformat(asked.query[name]) for name in ("start_date", "end_date"))
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        variables = asked.query["daily"].split(",")
        return {
            "daily_units": {"time": "iso8601", **{v: self.units[v.split("_")[0]] for v in variables}},
            "daily": {
                "time": [str(day) for day in days],
                **{v: [self.revised.get(str(day), float(day.day)) for day in days] for v in variables},
            },
        }

    def extract(self, today: date = TODAY, **changes: Any) -> Landed:
        values = {
            "kind": "open_meteo",
            "start": "2025-12-30",
            "forecast_days": 3,
            "regions": {"CA": {"latitude": 36.7, "longitude": -119.8, "time_zone": "America/Los_Angeles"}},
            "archive_url": f"{self.server.url}/archive",
            "forecast_url": f"{self.server.url}/forecast",
            **FAST,
            **changes,
        }
        landing = self.home / "landing"
        source = OpenMeteoSource.model_validate(values)
        return open_meteo.extract(
            "w", source, landing, self.home / "cache", taken_in_from_landing(landing, "weather", "w"), today
        )

    def rows(self) -> pl.DataFrame:
        return pl.concat(pl.read_parquet(file) for file in landed_extracts(self.home / "landing", "weather", "w"))


class Economy:
    """A publisher of one series, given as (period, value, known from, known to)."""

    def __init__(self, server: MisbehavingServer, home: Path) -> None:
        self.server, self.home = server, home
        self.figures = [
            ("2026-01-01", "100.1", "2026-02-10", "2026-03-09"),
            ("2026-01-01", "100.3", "2026-03-10", "9999-12-31"),
            ("2026-02-01", ".", "2026-03-10", "9999-12-31"),
        ]
        self.units = [("1776-07-04", CPI["unit"])]
        server.responder = self.answer

    def answer(self, asked: Asked) -> Any:
        if asked.path.endswith("/series"):
            return {"seriess": [{"realtime_start": day, "units": unit} for day, unit in self.units]}
        names = ("date", "value", "realtime_start", "realtime_end")
        offset, limit = int(asked.query["offset"]), int(asked.query["limit"])
        page = [dict(zip(names, figure, strict=True)) for figure in self.figures[offset : offset + limit]]
        return {"units": asked.query["units"], "count": len(self.figures), "observations": page}

    def extract(self, **changes: Any) -> Landed:
        values: Mapping[str, Any] = {
            "kind": "fred",
            "series": {"consumer_price_index": CPI},
            "api_key_variable": "FRED_KEY",
            "url": f"{self.server.url}/fred",
            **FAST,
            **changes,
        }
        landing = self.home / "landing"
        source = FredSource.model_validate(values)
        return fred.extract(
            "e", source, landing, self.home / "cache", taken_in_from_landing(landing, "economic_indicators", "e")
        )

    def rows(self) -> list[tuple[Any, ...]]:
        files = landed_extracts(self.home / "landing", "economic_indicators", "e")
        frame = pl.concat(pl.read_parquet(file) for file in files)
        return frame.select("period_start", "value", "published_on").rows()


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with misbehaving_server(lambda _: {}) as running:
        yield running


@pytest.fixture
def weather(server: MisbehavingServer, tmp_path: Path) -> Weather:
    return Weather(server, tmp_path)


@pytest.fixture
def economy(server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Economy:
    monkeypatch.setenv("FRED_KEY", "k3y")
    return Economy(server, tmp_path)


class TestWeather:
    def test_settled_days_come_from_the_archive_and_the_others_from_the_forecast(self, weather: Weather) -> None:
        landed = weather.extract()
        rows = weather.rows()
        assert [file.rows for file in landed.files] == [rows.height] == [83]
        assert rows["date"].to_list() == [str(date(2025, 12, 30) + timedelta(days=n)) for n in range(83)]
        settled = str(TODAY - timedelta(days=7))
        assert set(rows.filter(pl.col("date") <= settled)["provider"]) == {"open-meteo archive"}
        assert set(rows.filter(pl.col("date") > settled)["provider"]) == {"open-meteo forecast"}
        assert rows.row(0) == ("2025-12-30", "CA", *["30.0"] * 4, "open-meteo archive", str(TODAY))
        assert {asked.query["timezone"] for asked in weather.server.asked} == {"America/Los_Angeles"}

    def test_only_revised_days_come_again_with_the_day_of_their_revision(self, weather: Weather) -> None:
        weather.extract()
        assert weather.extract().files == ()
        weather.revised = {"2026-03-02": 7.5, "2026-03-21": 8.5}
        tomorrow = TODAY + timedelta(days=1)
        weather.extract(tomorrow)
        revised = weather.rows()[83:].select("date", "temperature_mean", "provider", "published_on").rows()
        assert revised == [
            ("2026-03-02", "7.5", "open-meteo archive", str(tomorrow)),
            ("2026-03-14", "14.0", "open-meteo archive", str(tomorrow)),
            ("2026-03-21", "8.5", "open-meteo forecast", str(tomorrow)),
            ("2026-03-23", "23.0", "open-meteo forecast", str(tomorrow)),
        ]
        weather.revised = {}
        weather.extract(tomorrow)
        assert weather.rows()[87:]["date"].to_list() == ["2026-03-02", "2026-03-21"], "back to the first figures"

    def test_a_year_that_is_over_is_asked_for_once(self, weather: Weather) -> None:
        weather.extract()
        weather.extract()
        ends = [asked.query["end_date"] for asked in weather.server.asked]
        assert (ends.count("2025-12-31"), len(ends)) == (1, 5)

    def test_figures_in_another_unit_than_declared_are_refused_and_nothing_is_taken(self, weather: Weather) -> None:
        weather.units["temperature"] = "°F"
        with pytest.raises(
            SourceError, match="temperature_2m_mean is in '°F' and not in '°C' as temperature_unit"
        ) as e:
            weather.extract()
        assert "Nothing of it was taken" in str(e.value)
        assert not (weather.home / "landing").exists()
        weather.units["temperature"] = "°C"
        assert weather.extract().files, "the refused answer was not kept"

    def test_figures_in_declared_other_units_are_converted(self, weather: Weather) -> None:
        weather.units = {"temperature": "°F", "precipitation": "inch"}
        weather.extract(temperature_unit="fahrenheit", precipitation_unit="inch")
        assert {asked.query["temperature_unit"] for asked in weather.server.asked} == {"fahrenheit"}
        assert weather.rows().row(0)[2:6] == ("-1.11", "-1.11", "-1.11", "762.0")

    @pytest.mark.parametrize("daily", [{}, {"time": ["2026-03-01"]}, {"time": "x"}, None, []])
    def test_an_answer_of_another_shape_is_refused(self, weather: Weather, daily: Any) -> None:
        weather.server.responder = lambda _: {"daily": daily, "daily_units": {}}
        with pytest.raises(SourceError, match="it has no list temperature_2m_mean of one number per day"):
            weather.extract()


class TestEconomy:
    def test_every_revision_comes_with_the_day_it_was_published_and_periods_without_figure_are_counted(
        self, economy: Economy
    ) -> None:
        landed = economy.extract()
        assert economy.rows() == [("2026-01-01", "100.1", "2026-02-10"), ("2026-01-01", "100.3", "2026-03-10")]
        assert landed.notes == ("1 observations of CPIAUCSL have no figure",)
        assert {asked.query["realtime_end"] for asked in economy.server.asked} == {"9999-12-31"}

    def test_a_revision_alone_comes_again(self, economy: Economy) -> None:
        economy.extract()
        assert economy.extract().files == ()
        economy.figures[2] = ("2026-02-01", "101", "2026-03-18", "9999-12-31")
        economy.extract()
        assert economy.rows()[2:] == [("2026-02-01", "101", "2026-03-18")]

    def test_pages_are_put_together(self, economy: Economy) -> None:
        economy.figures = [(f"20{n}-01-01", str(n), "2026-01-01", "9999-12-31") for n in range(11, 18)]
        economy.extract(page_rows=3)
        assert [value for _, value, _ in economy.rows()] == [str(n) for n in range(11, 18)]
        offsets = [asked.query["offset"] for asked in economy.server.asked if "offset" in asked.query]
        assert offsets == ["0", "3", "6"]

    def test_pages_that_do_not_add_up_are_refused(self, economy: Economy) -> None:
        whole = economy.answer

        def less(asked: Asked) -> Any:
            answer = whole(asked)
            return {**answer, "count": 9} if "observations" in answer else answer

        economy.server.responder = less
        with pytest.raises(SourceError, match="CPIAUCSL has 9 observations, and its pages 3"):
            economy.extract()

    def test_a_rebased_series_is_refused(self, economy: Economy) -> None:
        economy.units.append(("2026-03-01", "Index 2017=100"))
        with pytest.raises(SourceError, match="is in 'Index 2017=100' and not in 'Index 1982-1984=100'"):
            economy.extract()

    def test_figures_from_before_the_series_was_in_its_unit_are_left_out_and_counted(self, economy: Economy) -> None:
        economy.units = [("1776-07-04", "Index 1967=100"), ("2026-03-10", CPI["unit"])]
        landed = economy.extract()
        assert economy.rows() == [("2026-01-01", "100.3", "2026-03-10")]
        assert "1 observations of CPIAUCSL are from before 2026-03-10, in another unit" in landed.notes

    def test_transformed_figures_are_refused(self, economy: Economy) -> None:
        whole = economy.answer
        economy.server.responder = lambda asked: {**whole(asked), "units": "pch"}
        with pytest.raises(SourceError, match="its figures are transformed"):
            economy.extract()

    def test_without_its_key_the_source_says_which_variable_to_set(
        self, economy: Economy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("FRED_KEY")
        with pytest.raises(SourceError, match="source e: the environment variable FRED_KEY is not set"):
            economy.extract()
