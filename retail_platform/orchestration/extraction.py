"""Bringing in what the configured sources have: land an extract, take it in, and say where a source did not answer.

Here: the order of the two steps, attempts, and what the lake tells a connector. Not here: how a source is read
(`sources/`) and how a file is taken in (`ingestion.py`).

An extract that has landed is taken in before the next one is made, since the ledger alone knows how far a source has
been read. So a crash at any point loses nothing and repeats nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from retail_platform.contracts import FEEDS, TABLES
from retail_platform.lakehouse import Append, Lakehouse, Provenance
from retail_platform.lakehouse.locks import table_locks
from retail_platform.monitoring.alerts import alert
from retail_platform.orchestration.ingestion import Ingestion, ingest_feed
from retail_platform.settings import FredSource, OpenMeteoSource, PostgresSource, Settings, Source
from retail_platform.sources import fred, open_meteo, postgres
from retail_platform.sources.extracts import (
    Landed,
    SourceError,
    SourceInterrupted,
    TakenIn,
    landed_extracts,
    remove_unfinished,
)

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SourceReport:
    """What became of one source in one go. `problem` says why it could not be read, and is None where it could.

    `last_extract` is when the newest extract that the lake holds was taken in (UTC).
    """

    source: str
    required: bool
    files: int
    rows: int
    notes: tuple[str, ...]
    problem: str | None
    last_extract: datetime | None

    @property
    def stale(self) -> bool:
        """Whether the lake goes on with the last good data."""
        return self.problem is not None and not self.required

    def in_words(self) -> str:
        since = f"; last extract {self.last_extract:%Y-%m-%d %H:%M} UTC" if self.last_extract else "; no extract yet"
        new = f"source {self.source}: {self.rows} new rows in {self.files} files"
        return "; ".join([f"{self.problem}{since}" if self.problem else new, *self.notes])


def bring_in(
    lakehouse: Lakehouse, feed: str, run_id: str, progress: Progress = lambda _: None
) -> tuple[Ingestion, list[SourceReport]]:
    """Take in the feed's landing files, and what its sources have that is new.

    A source that does not answer keeps nothing else back: the report names the problem. Where the source is not
    required, an alert says that its data is stale, once a day.
    """
    result = ingest_feed(lakehouse, feed, run_id, progress)
    reports = []

    def ingest() -> None:
        nonlocal result
        result = result.then(ingest_feed(lakehouse, feed, run_id, progress))

    for name, source in lakehouse.settings.sources_of(feed).items():
        progress(f"{feed}: asking {name}")
        reports.append(_bring_in_source(lakehouse, name, source, ingest))
    _raise_alerts(lakehouse, [report for report in reports if report.stale], run_id)
    return result, reports


def probe(settings: Settings, name: str) -> str:
    """Whether a source answers at the first attempt, in words. Raises `SourceError`."""
    source = settings.sources[name].model_copy(update={"attempts": 1})
    match source:
        case PostgresSource():
            return postgres.probe(name, source, settings.form_of_extracts(source.feed))
        case OpenMeteoSource():
            return open_meteo.probe(name, source, datetime.now(UTC).date())
        case FredSource():
            return fred.probe(name, source)


def taken_in(lakehouse: Lakehouse, feed: str, source: str) -> TakenIn:
    """What the lake holds of a source."""
    raw = FEEDS[feed].raw_table

    def rows_of(file_ids: Sequence[str]) -> pl.DataFrame:
        places = ", ".join("?" for _ in file_ids)
        columns = ["file_id", *FEEDS[feed].column_names]
        return lakehouse.read(raw, columns=columns, where=f"file_id IN ({places or 'NULL'})", parameters=file_ids)

    extracts = lakehouse.read(
        "raw.ingested_files",
        columns=["file_id", "file_name", "extracted_after", "extracted_to", "rows", "ingested_at"],
        where="feed = ? AND source = ?",
        parameters=[feed, source],
    )
    return TakenIn(extracts, rows_of)


def _bring_in_source(lakehouse: Lakehouse, name: str, source: Source, ingest: Callable[[], None]) -> SourceReport:
    landing = lakehouse.settings.landing
    notes: tuple[str, ...] = ()
    problem: str | None = None
    # Two processes that read from one position would land the same rows twice.
    with table_locks(lakehouse.settings, [f"source-{name}"]):
        remove_unfinished(landing, source.feed, name)
        before = taken_in(lakehouse, source.feed, name).extracts
        try:
            for attempt in _attempts(source):
                with attempt:
                    held = _all_taken_in(lakehouse, name, source, ingest)
                    _refuse_extracts_left_over(lakehouse, name, source, held)
                    notes = _extract(lakehouse, name, source, held).notes
        except SourceError as error:
            problem = str(error)
        after = _all_taken_in(lakehouse, name, source, ingest).extracts
    new = after.join(before, on="file_id", how="anti")
    return SourceReport(
        source=name,
        required=source.required,
        files=new.height,
        rows=int(new["rows"].sum()),
        notes=notes,
        problem=problem,
        last_extract=None if after.is_empty() else datetime.fromisoformat(str(after["ingested_at"].max())),
    )


def _all_taken_in(lakehouse: Lakehouse, name: str, source: Source, ingest: Callable[[], None]) -> TakenIn:
    """What the lake holds of a source once the extracts that have landed are taken in."""
    held = taken_in(lakehouse, source.feed, name)
    if not _left_over(lakehouse, source.feed, name, held):
        return held
    ingest()
    return taken_in(lakehouse, source.feed, name)


def _attempts(source: Source) -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(SourceInterrupted),
        stop=stop_after_attempt(source.attempts),
        wait=wait_random_exponential(multiplier=source.first_wait_seconds, max=source.longest_wait_seconds),
        reraise=True,
    )


def _extract(lakehouse: Lakehouse, name: str, source: Source, held: TakenIn) -> Landed:
    landing, cache = lakehouse.settings.landing, lakehouse.settings.home / "cache" / name
    match source:
        case PostgresSource():
            return postgres.extract(name, source, lakehouse.settings.form_of_extracts(source.feed), landing, held)
        case OpenMeteoSource():
            return open_meteo.extract(name, source, landing, cache, held, datetime.now(UTC).date())
        case FredSource():
            return fred.extract(name, source, landing, cache, held)


def _refuse_extracts_left_over(lakehouse: Lakehouse, name: str, source: Source, held: TakenIn) -> None:
    """An extract that cannot be taken in would be made again and again, and rows after it taken in before its own."""
    left = _left_over(lakehouse, source.feed, name, held)
    if left:
        raise SourceError(
            f"source {name}: its extracts {', '.join(left)} lie in the landing zone and could not be taken in; nothing "
            "further is extracted. Look at what the run says of them; removed from there, they are extracted again"
        )


def _left_over(lakehouse: Lakehouse, feed: str, name: str, held: TakenIn) -> list[str]:
    """Extracts of a source that lie in the landing zone and are not in the ledger."""
    known = set(held.extracts["file_name"])
    return [file.name for file in landed_extracts(lakehouse.settings.landing, feed, name) if file.name not in known]


def _raise_alerts(lakehouse: Lakehouse, stale: Sequence[SourceReport], run_id: str) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    for report in stale:
        subject = f"source {report.source}"
        told = lakehouse.read(
            "monitoring.alerts",
            where="subject = ? AND raised_at >= ?",
            parameters=[subject, now.replace(hour=0, minute=0)],
        )
        if told.is_empty():
            message = f"{report.in_words()}. Forecasts go on with the last data"
            row = alert(severity="warning", subject=subject, message=message, run_id=run_id, raised_at=now)
            lakehouse.commit(
                [Append(TABLES["monitoring.alerts"], row)],
                Provenance(asset="monitoring.alerts", run_id=run_id, code_version="1", partition=report.source),
            )
