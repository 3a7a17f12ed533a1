"""Judging rejected rows again: after a fix of the settings, the masters or a mapping, they may be good.

Here: which raw rows move to another day or are read again, which days are cleaned, and what became of the rows. Not
here: what makes a row good (`cleaning/`), and rows accepted as lost (`governance/quarantine.py`).

The raw table keeps text as received, so rows are judged again by cleaning their days once more. A row whose date could
not be read, or lay after its arrival, is kept under the day of arrival; where its date can be read now, it moves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import polars as pl

from retail_platform.cleaning.text import own_day
from retail_platform.contracts import FEEDS, TABLES, Feed, Table
from retail_platform.contracts.feeds import raw_table
from retail_platform.governance.audit import audit_entry
from retail_platform.governance.quarantine import KEY, WORK_LOCK, Selection, files_of, rejected_rows
from retail_platform.lakehouse import Append, Lakehouse, Provenance, ReplaceSlices
from retail_platform.lakehouse.locks import table_locks
from retail_platform.orchestration.assets.clean import judge_rows, raw_columns, references_of
from retail_platform.orchestration.ingestion import ingest_again, store_time_zones
from retail_platform.orchestration.reject_budget import WITHHELD
from retail_platform.orchestration.runner import RunFailed, materialize
from retail_platform.orchestration.sensors import ranges
from retail_platform.orchestration.staleness import MASTERS

Progress = Callable[[str], None]

LEDGER = TABLES["raw.ingested_files"]


@dataclass(frozen=True)
class Replay:
    """`outcome` has one row per file: feed, file_name, rows, clean, duplicate, rejected, withheld, moved (rows that
    went to another day). `complaints` say which runs failed, and why."""

    outcome: pl.DataFrame
    complaints: tuple[str, ...]


def replay(
    lakehouse: Lakehouse,
    selection: Selection,
    *,
    who: str,
    read_again: bool = False,
    progress: Progress = lambda _: None,
) -> Replay:
    """Judge the selected rejected rows again, by the settings and masters as they are now.

    With `read_again` every row of the selected file is read anew from the landing zone and judged, which is needed
    where the raw text itself is wrong because a column was mapped wrongly. Killed in the middle, it leaves each file as
    it was or read again; giving the command again ends the work.
    """
    rows = rejected_rows(lakehouse, selection, rows_of_withheld_days(lakehouse, selection.feed))
    files = files_of(lakehouse, selection) if read_again else rows.select("feed", "file_id").unique(maintain_order=True)
    days: dict[str, set[date]] = {feed: set() for feed in files["feed"]}
    moved: dict[tuple[str, str], int] = {}
    with table_locks(lakehouse.settings, [WORK_LOCK]):
        if files.height:
            _note(lakehouse, selection, rows.height, who, "read-again" if read_again else "replay")
        for name, file_id in files.select("feed", "file_id").iter_rows():
            feed = FEEDS[name]
            if read_again:
                days[name] |= _days_of_file(lakehouse, feed, file_id)
                ingest_again(lakehouse, name, file_id, "replay")
                days[name] |= _days_of_file(lakehouse, feed, file_id)
            if feed.date_column:
                left, reached, moved[name, file_id] = move_to_own_days(lakehouse, feed, file_id)
                days[name] |= left | reached
    for name, day in rows.select("feed", "partition_date").unique().iter_rows():
        days[name].add(day)
    keys = _rows_of_files(lakehouse, files) if read_again else rows.select(KEY)
    complaints = [
        words for name in _masters_first(days) for words in _clean(lakehouse, FEEDS[name], days[name], progress)
    ]
    return Replay(_outcome(lakehouse, keys, moved), tuple(complaints))


def rows_of_withheld_days(lakehouse: Lakehouse, feed: str | None = None) -> pl.DataFrame:
    """The rows that would be rejected on withheld days, of one feed or of all, as rows of quarantine.rejected_rows.

    They stand in no table, since their day was not written: they are judged now, and nothing is written.
    """
    found = [TABLES["quarantine.rejected_rows"].empty()]
    withheld = lakehouse.read(WITHHELD.name, columns=["feed", "partition_date"])
    for name, day in withheld.sort("feed", "partition_date").iter_rows():
        if feed in (None, name):
            of_day, parameters = ("partition_date = ?", [day]) if day else ("", [])
            raw = lakehouse.read(
                FEEDS[name].raw_table, columns=raw_columns(FEEDS[name]), where=of_day, parameters=parameters
            )
            found.append(judge_rows(lakehouse, FEEDS[name], raw, references_of(lakehouse, FEEDS[name])).rejected)
    return pl.concat(found)


def move_to_own_days(lakehouse: Lakehouse, feed: Feed, file_id: str) -> tuple[set[date], set[date], int]:
    """Put the rows of a file under the days that their dates tell now: the days left, the days reached, and how many
    rows moved. In one transaction with the days of the file in the ledger; no other column changes, and no row that
    tells no day.
    """
    table = _raw_table_as_it_is(lakehouse, feed)
    ledger = lakehouse.read(LEDGER.name, where="feed = ? AND file_id = ?", parameters=[feed.name, file_id])
    settings, now = lakehouse.settings, _now()
    form = settings.feed(feed.name) if ledger["source"].item() is None else settings.form_of_extracts(feed.name)
    day = own_day(feed, form, store_time_zones(lakehouse, form, now))
    rows = lakehouse.read(table.name, where="file_id = ?", parameters=[file_id]).with_columns(
        pl.when(day.is_between(settings.start_date, now.date())).then(day).otherwise("partition_date").alias("own_day")
    )
    moves = pl.col("own_day") != pl.col("partition_date")
    left = set(rows.filter(moves)["partition_date"])
    if not left:
        return set(), set(), 0
    touched = rows.filter(pl.col("partition_date").is_in(list(left)))
    staying, moving = touched.filter(~moves).drop("own_day"), touched.filter(moves)
    reached = set(moving["own_day"])
    slices = [{"file_id": file_id, "partition_date": left_day} for left_day in sorted(left)]
    moving = moving.with_columns(partition_date="own_day").drop("own_day")
    ledger = ledger.with_columns(first_date=pl.lit(rows["own_day"].min()), last_date=pl.lit(rows["own_day"].max()))
    lakehouse.commit(
        [
            ReplaceSlices(table, staying, slices),
            Append(table, moving),
            ReplaceSlices(LEDGER, ledger, [{"feed": feed.name, "file_id": file_id}]),
        ],
        Provenance(asset=table.name, run_id="replay", code_version=feed.version, partition=f"moved in {file_id[:12]}"),
    )
    return left, reached, moving.height


def _clean(lakehouse: Lakehouse, feed: Feed, days: set[date], progress: Progress) -> list[str]:
    """Clean the days of a feed, or the whole of it; why it failed, where it did."""
    selection = f'key:"{feed.clean_table.replace(".", "/")}"'
    spans = ranges(days) if feed.date_column else [None]
    complaints = []
    for span in spans:
        try:
            materialize(lakehouse, selection, span, None, progress)
        except RunFailed as failed:
            complaints.append(str(failed))
    return complaints


def _outcome(lakehouse: Lakehouse, keys: pl.DataFrame, moved: dict[tuple[str, str], int]) -> pl.DataFrame:
    """Where the rows are now, counted by file."""
    places = {"clean": "source_file_id AS file_id, source_row_number AS row_number", "": "file_id, row_number"}
    counted = []
    for (name, file_id), of_file in keys.group_by("feed", "file_id", maintain_order=True):
        feed, counts = FEEDS[str(name)], {}
        for place, table in (
            ("clean", feed.clean_table),
            ("duplicate", "quarantine.duplicate_rows"),
            ("rejected", "quarantine.rejected_rows"),
        ):
            columns = places.get(place, places[""])
            condition = "source_file_id = $1" if place == "clean" else "file_id = $1 AND feed = $2"
            there = lakehouse.query(
                f"SELECT {columns} FROM {table} WHERE {condition}", [file_id] if place == "clean" else [file_id, name]
            )
            counts[place] = of_file.join(there, on=["file_id", "row_number"], how="semi").height
        counted.append(
            {
                "feed": name,
                "file_id": file_id,
                "rows": of_file.height,
                **counts,
                "withheld": of_file.height - sum(counts.values()),
                "moved": moved.get((str(name), str(file_id)), 0),
            }
        )
    if not counted:
        return pl.DataFrame()
    names = lakehouse.read(LEDGER.name, columns=["feed", "file_id", "file_name"])
    outcome = pl.DataFrame(counted).join(names, on=["feed", "file_id"])
    return outcome.select("feed", "file_name", pl.exclude("feed", "file_name", "file_id")).sort("feed", "file_name")


def _note(lakehouse: Lakehouse, selection: Selection, rows: int, who: str, action: str) -> None:
    table = TABLES["governance.audit_log"]
    entry = audit_entry(
        who=who,
        action=action,
        subject=selection.feed or "quarantine",
        reason=None,
        details={**selection.facts(), "rejected_rows": rows},
        decided_at=_now(),
    )
    lakehouse.commit([Append(table, entry)], Provenance(table.name, run_id=f"audit {entry['audit_id'].item()}"))


def _raw_table_as_it_is(lakehouse: Lakehouse, feed: Feed) -> Table:
    present = lakehouse.read(feed.raw_table, where="false").columns
    return raw_table(feed, [name for name in present if name not in TABLES[feed.raw_table].polars_schema])


def _days_of_file(lakehouse: Lakehouse, feed: Feed, file_id: str) -> set[date]:
    days = lakehouse.query(f"SELECT DISTINCT partition_date FROM {feed.raw_table} WHERE file_id = ?", [file_id])
    return set(days.to_series())


def _rows_of_files(lakehouse: Lakehouse, files: pl.DataFrame) -> pl.DataFrame:
    rows = [
        lakehouse.query(
            f"SELECT ? AS feed, file_id, row_number FROM {FEEDS[feed].raw_table} WHERE file_id = ?", [feed, file_id]
        )
        for feed, file_id in files.select("feed", "file_id").iter_rows()
    ]
    return pl.concat(rows)


def _masters_first(feeds: dict[str, set[date]]) -> list[str]:
    return sorted(feeds, key=lambda name: (FEEDS[name].clean_table not in MASTERS, FEEDS[name].date_column is not None))


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
