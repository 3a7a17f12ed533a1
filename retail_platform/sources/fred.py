"""Economic figures with all their revisions, from a service with the interface of FRED.

Here: pages, units, and which revisions are new. Not here: requests (`sources/http.py`), and what the feed means
(`contracts/feeds.py`).

Asked for today's figures alone, the service dates each of them with today, as if it had been published now. So all
real-time periods are asked for: then an observation's `realtime_start` is the day from which it was known. A series
may have been in another unit at that time; figures that were only ever known in another unit are left out.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from retail_platform.contracts import FEEDS
from retail_platform.settings import FredSeries, FredSource
from retail_platform.sources.extracts import ExtractWriter, Landed, SourceError, TakenIn, not_yet_taken_in, secret
from retail_platform.sources.http import JsonClient, Request

FIRST_DAY, LAST_DAY = "1776-07-04", "9999-12-31"
"""The whole real-time period, in the words of the interface."""

_NO_FIGURE = "."
_PROVIDER = "fred"


def extract(name: str, source: FredSource, landing: Path, cache: Path, taken_in: TakenIn) -> Landed:
    """Land every published figure that the lake does not have. Raises `SourceError`."""
    columns = FEEDS[source.feed].column_names
    rows: list[dict[str, str]] = []
    notes: list[str] = []
    with JsonClient(name, source, cache) as client:
        for indicator, series in source.series.items():
            in_unit_since = _in_unit_since(name, source, client, series)
            observations = _observations(name, source, client, series)
            with_figure = [o for o in observations if o["value"] != _NO_FIGURE]
            figures = [o for o in with_figure if o["realtime_end"] >= in_unit_since]
            if len(with_figure) < len(observations):
                notes.append(f"{len(observations) - len(with_figure)} observations of {series.id} have no figure")
            if len(figures) < len(with_figure):
                other = len(with_figure) - len(figures)
                notes.append(f"{other} observations of {series.id} are from before {in_unit_since}, in another unit")
            rows += [
                {
                    "indicator": indicator,
                    "period_start": o["date"],
                    "value": o["value"],
                    "published_on": max(o["realtime_start"], in_unit_since),
                    "provider": _PROVIDER,
                }
                for o in figures
            ]
    found = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String))
    new = not_yet_taken_in(found, taken_in.rows_of(taken_in.extracts["file_id"].to_list()))
    if new.is_empty():
        return Landed((), tuple(notes))
    with ExtractWriter(landing, source.feed, name, columns, datetime.now(UTC), 1) as file:
        file.write(new.sort("published_on", maintain_order=True))
        return Landed((file.land(None, str(found["published_on"].max())),), tuple(notes))


def probe(name: str, source: FredSource) -> str:
    """Whether the service answers, the key is good and the units are those of the settings, in words."""
    with JsonClient(name, source, None) as client:
        for series in source.series.values():
            _in_unit_since(name, source, client, series)
    return f"{len(source.series)} series in the units declared"


def _observations(name: str, source: FredSource, client: JsonClient, series: FredSeries) -> list[dict[str, str]]:
    """Every observation of a series in every revision, page by page."""
    found: list[dict[str, str]] = []
    while True:
        parameters = {
            "observation_start": source.start.isoformat(),
            "realtime_start": FIRST_DAY,
            "realtime_end": LAST_DAY,
            "units": "lin",
            "output_type": "1",
            "sort_order": "asc",
            "limit": str(source.page_rows),
            "offset": str(len(found)),
        }
        request = _request(name, source, "series/observations", series, parameters)
        page = client.get(request, lambda answer: _check_page(name, series, answer))
        found += page["observations"]
        if len(found) >= page["count"] or not page["observations"]:
            if len(found) != page["count"]:
                raise SourceError(
                    f"source {name}: {series.id} has {page['count']} observations, and its pages {len(found)}; it may "
                    "have changed between two pages, and the next run asks again"
                )
            return found


def _check_page(name: str, series: FredSeries, answer: Any) -> None:
    said = answer if isinstance(answer, dict) else {}
    observations = said.get("observations")
    wrong = []
    if said.get("units") != "lin":
        wrong.append(f"its figures are transformed (units {said.get('units')!r} instead of 'lin')")
    if not isinstance(said.get("count"), int):
        wrong.append("it does not say how many observations there are")
    if not isinstance(observations, list) or not all(_is_observation(o) for o in observations):
        wrong.append("its observations have not each a date, a value, a realtime_start and a realtime_end")
    if wrong:
        raise SourceError(
            f"source {name}: the answer for {series.id} is refused: {'; '.join(wrong)}; look at the address"
        )


def _is_observation(observation: Any) -> bool:
    return isinstance(observation, dict) and all(
        isinstance(observation.get(key), str) for key in ("date", "value", "realtime_start", "realtime_end")
    )


def _in_unit_since(name: str, source: FredSource, client: JsonClient, series: FredSeries) -> str:
    """The day from which the series has been in the unit declared. Raises `SourceError` where it is not today."""

    def check(answer: Any) -> None:
        stated = _units(answer)
        if not stated or stated[-1][1] != series.unit:
            unit = stated[-1][1] if stated else None
            raise SourceError(
                f"source {name}: {series.id} is in {unit!r} and not in {series.unit!r} as the settings declare; "
                "nothing of it was taken. A rebased index is another figure: give it an indicator of its own"
            )

    parameters = {"realtime_start": FIRST_DAY, "realtime_end": LAST_DAY}
    since = LAST_DAY
    for begun, unit in reversed(_units(client.get(_request(name, source, "series", series, parameters), check))):
        if unit != series.unit:
            break
        since = begun
    return since


def _units(answer: Any) -> list[tuple[str, str]]:
    """The units of a series, each with the day from which it was so described, in the order of days."""
    described = answer.get("seriess") if isinstance(answer, dict) else None
    if not isinstance(described, list) or not all(isinstance(d, dict) for d in described):
        return []
    return sorted((str(d.get("realtime_start")), str(d.get("units"))) for d in described)


def _request(name: str, source: FredSource, path: str, series: FredSeries, parameters: dict[str, str]) -> Request:
    return Request(
        f"{source.url}/{path}",
        {"series_id": series.id, "file_type": "json", **parameters},
        {"api_key": secret(name, source.api_key_variable)},
    )
