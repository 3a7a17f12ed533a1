"""Daily weather of the configured regions, from a service with the interface of Open-Meteo.

Here: which days are asked for where, the units of the answer, and which figures are new. Not here: requests
(`sources/http.py`), and what the feed means (`contracts/feeds.py`).

Days that are settled come from the archive, a calendar year at a time, later ones and the future from the forecast.
A figure that differs from the one that the lake has is landed as a revision, published on the day it was seen.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from retail_platform.contracts import FEEDS
from retail_platform.settings import OpenMeteoSource, Place
from retail_platform.sources.extracts import ExtractWriter, Landed, SourceError, TakenIn, secret
from retail_platform.sources.http import JsonClient, Request

VARIABLES = {
    "temperature_mean": "temperature_2m_mean",
    "temperature_min": "temperature_2m_min",
    "temperature_max": "temperature_2m_max",
    "precipitation": "precipitation_sum",
}
"""Column of the feed -> the service's name."""

# Setting -> the unit as an answer states it, the contract's unit, and how the one becomes the other.
_UNITS: Mapping[str, tuple[str, str, Callable[[float], float]]] = {
    "celsius": ("°C", "degrees Celsius", lambda celsius: celsius),
    "fahrenheit": ("°F", "degrees Celsius", lambda fahrenheit: round((fahrenheit - 32) * 5 / 9, 2)),
    "mm": ("mm", "millimetres", lambda millimetres: millimetres),
    "inch": ("inch", "millimetres", lambda inches: round(inches * 25.4, 2)),
}
_PROVIDER = "open-meteo"


def extract(name: str, source: OpenMeteoSource, landing: Path, cache: Path, taken_in: TakenIn, today: date) -> Landed:
    """Land the weather that the lake does not have, or has with other figures. Raises `SourceError`."""
    settled = today - timedelta(days=source.settled_after_days)
    rows: list[dict[str, Any]] = []
    with JsonClient(name, source, cache) as client:
        for region, place in source.regions.items():
            for request, provider in _requests(name, source, place, settled, today):
                answer = client.get(request, lambda answer: check_answer(name, source, answer))
                rows += [{"region": region, "provider": provider, **row} for row in rows_of_answer(source, answer)]
    if not rows:
        return Landed((), ())
    columns = FEEDS[source.feed].column_names
    found = pl.DataFrame(rows, schema={c: pl.String for c in columns if c != "published_on"})
    new = revisions(found, taken_in).with_columns(pl.lit(today.isoformat()).alias("published_on"))
    if new.is_empty():
        return Landed((), ())
    with ExtractWriter(landing, source.feed, name, columns, datetime.now(UTC), 1) as file:
        file.write(new)
        return Landed((file.land(None, settled.isoformat()),), ())


def revisions(found: pl.DataFrame, taken_in: TakenIn) -> pl.DataFrame:
    """The rows of `found` that are not the latest that the lake has of their region and day."""
    key, values = ["date", "region"], [c for c in found.columns if c not in ("date", "region")]
    extracts = taken_in.extracts.sort("ingested_at").select("file_id").with_row_index("order")
    held = taken_in.rows_of(extracts["file_id"].to_list()).join(extracts, on="file_id")
    latest = held.sort("order", maintain_order=True).unique(key, keep="last").select(*key, *values)
    return found.join(latest, on=[*key, *values], how="anti", nulls_equal=True, maintain_order="left")


def probe(name: str, source: OpenMeteoSource, today: date) -> str:
    """Whether the service answers with the units of the settings, in words. Raises `SourceError`."""
    region, place = next(iter(source.regions.items()))
    request = _request(name, source, source.forecast_url, place, today, today)
    with JsonClient(name, source, None) as client:
        answer = client.get(request, lambda answer: check_answer(name, source, answer))
    return f"{len(answer['daily']['time'])} day of {region}"


def check_answer(name: str, source: OpenMeteoSource, answer: Any) -> None:
    """Raise `SourceError` where an answer has not the shape of the interface, or states other units than declared."""
    units, daily = (_part(answer, name) for name in ("daily_units", "daily"))
    days = daily.get("time") or []
    wrong = [
        f"it has no list {variable} of one number per day"
        for variable in VARIABLES.values()
        if not isinstance(daily.get(variable), list)
        or len(daily[variable]) != len(days)
        or not all(value is None or type(value) in (int, float) for value in daily[variable])
    ]
    if not (days and isinstance(days, list) and all(isinstance(day, str) for day in days)):
        wrong.append("it has no list time of days")
    for variable in VARIABLES.values():
        setting, _, declared = _unit(source, variable)
        if units.get(variable) != declared:
            wrong.append(f"{variable} is in {units.get(variable)!r} and not in {declared!r} as {setting} declares")
    if wrong:
        raise SourceError(
            f"source {name}: the answer is refused: {'; '.join(wrong)}. Nothing of it was taken; look at the address, "
            "or declare the unit that the service gives, which is then converted"
        )


def _part(answer: Any, name: str) -> dict[str, Any]:
    part = answer.get(name) if isinstance(answer, dict) else None
    return part if isinstance(part, dict) else {}


def rows_of_answer(source: OpenMeteoSource, answer: Mapping[str, Any]) -> Iterator[dict[str, str | None]]:
    """One row per day that has any figure, as text, in the units of the contract."""
    daily = answer["daily"]
    for position, day in enumerate(daily["time"]):
        figures = {column: daily[variable][position] for column, variable in VARIABLES.items()}
        if any(figure is not None for figure in figures.values()):
            yield {
                "date": day,
                **{column: _in_contract_unit(source, column, figure) for column, figure in figures.items()},
            }


def _in_contract_unit(source: OpenMeteoSource, column: str, figure: float | None) -> str | None:
    if figure is None:
        return None
    setting = source.precipitation_unit if column == "precipitation" else source.temperature_unit
    return str(float(_UNITS[setting][2](figure)))


def _unit(source: OpenMeteoSource, variable: str) -> tuple[str, str, str]:
    """The setting of a variable's unit, its value, and the sign by which an answer states it."""
    setting = "precipitation_unit" if variable.startswith("precipitation") else "temperature_unit"
    value = str(getattr(source, setting))
    return setting, value, _UNITS[value][0]


def _requests(
    name: str, source: OpenMeteoSource, place: Place, settled: date, today: date
) -> Iterator[tuple[Request, str]]:
    for year in range(source.start.year, settled.year + 1):
        first, last = max(source.start, date(year, 1, 1)), min(settled, date(year, 12, 31))
        if first <= last:
            closed = last == date(year, 12, 31)
            request = _request(name, source, source.archive_url, place, first, last, closed=closed)
            yield request, f"{_PROVIDER} archive"
    first = max(source.start, settled + timedelta(days=1))
    last = today + timedelta(days=source.forecast_days - 1)
    if first <= last:
        yield _request(name, source, source.forecast_url, place, first, last), f"{_PROVIDER} forecast"


def _request(
    name: str, source: OpenMeteoSource, url: str, place: Place, first: date, last: date, *, closed: bool = False
) -> Request:
    variable = source.api_key_variable
    return Request(
        url,
        {
            "latitude": str(place.latitude),
            "longitude": str(place.longitude),
            "timezone": place.time_zone,
            "start_date": first.isoformat(),
            "end_date": last.isoformat(),
            "daily": ",".join(VARIABLES.values()),
            "temperature_unit": source.temperature_unit,
            "precipitation_unit": source.precipitation_unit,
        },
        {"apikey": secret(name, variable)} if variable else {},
        closed=closed,
    )
