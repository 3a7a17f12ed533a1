"""Taking in what lies in the landing zone: each content once per feed, rows and ledger in one transaction.

Here: the loop over files, the content lock and the ledger. Not here: how a file is read (`sources/files.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from retail_platform.cleaning import References, clean_feed, time_zones_of
from retail_platform.contracts import FEEDS, TABLES
from retail_platform.lakehouse import Append, Lakehouse, Provenance
from retail_platform.lakehouse.locks import table_locks
from retail_platform.settings import FeedSettings
from retail_platform.sources.extracts import extract_of
from retail_platform.sources.files import (
    BrokenFile,
    LandingFile,
    content_hash,
    discover,
    inspect_landing_file,
    read_landing_file,
)

Progress = Callable[[str], None]


@dataclass
class Ingestion:
    """What became of every file of a feed in one go."""

    feed: str
    ingested: list[str] = field(default_factory=list)
    rows: int = 0
    known: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    snapshot_id: int | None = None

    def then(self, later: "Ingestion") -> "Ingestion":
        """Join a later go of the same feed to this one, where what this one took in is no longer news."""
        return Ingestion(
            self.feed,
            ingested=[*self.ingested, *later.ingested],
            rows=self.rows + later.rows,
            known=self.known,
            empty=[*self.empty, *later.empty],
            ignored=later.ignored,
            broken=later.broken,
            notes=[*self.notes, *later.notes],
            snapshot_id=later.snapshot_id or self.snapshot_id,
        )


def ingest_feed(lakehouse: Lakehouse, feed_name: str, run_id: str, progress: Progress = lambda _: None) -> Ingestion:
    """Take in every new file of a feed. Broken files are named in the result and left where they are."""
    settings = lakehouse.settings
    files, ignored = discover(settings.landing, feed_name)
    result = Ingestion(feed_name, ignored=[f"{file.name}: {file.reason}" for file in ignored])
    for file in files:
        try:
            file_id = content_hash(file.path)
        except OSError as error:
            result.broken.append(
                f"landing file {feed_name}/{file.name}: {error.strerror}; mend its rights or land it again"
            )
            continue
        # Two processes may find the same content, under one name or two: the lock makes check and commit one step.
        with table_locks(settings, [f"content-{file_id}"]):
            if _is_known(lakehouse, feed_name, file_id):
                result.known.append(file.name)
                continue
            try:
                _take_in(lakehouse, file, file_id=file_id, run_id=run_id, result=result)
            except BrokenFile as broken:
                result.broken.append(str(broken))
                continue
        progress(f"{feed_name}: {file.name}")
    return result


def _take_in(lakehouse: Lakehouse, file: LandingFile, *, file_id: str, run_id: str, result: Ingestion) -> None:
    feed = FEEDS[result.feed]
    now = datetime.now(UTC).replace(tzinfo=None)
    settings = lakehouse.settings
    extract = extract_of(file.path)
    form = settings.form_of_extracts(feed.name) if extract else settings.feed(feed.name)
    report = inspect_landing_file(file, feed, form)
    rows = read_landing_file(
        file,
        feed,
        form,
        file_id=file_id,
        ingested_at=now,
        first_date=settings.start_date,
        today=now.date(),
        store_time_zones=_store_time_zones(lakehouse, form, now),
    )
    facts = rows.select(
        pl.len().alias("rows"),
        pl.col("partition_date").min().alias("first_date"),
        pl.col("partition_date").max().alias("last_date"),
    ).collect(engine="streaming")
    row = facts.row(0, named=True)
    ledger = pl.DataFrame(
        {
            "file_id": [file_id],
            "feed": [feed.name],
            "file_name": [file.name],
            "bytes": [file.bytes],
            "rows": [row["rows"]],
            "first_date": [row["first_date"]],
            "last_date": [row["last_date"]],
            "status": ["ingested" if row["rows"] else "empty"],
            "run_id": [run_id],
            "file_modified_at": [file.modified_at],
            "ingested_at": [now],
            "source": [extract.source if extract else None],
            "extracted_after": [extract.after if extract else None],
            "extracted_to": [extract.to if extract else None],
        },
        schema=TABLES["raw.ingested_files"].polars_schema,
    )
    commit = lakehouse.commit(
        [Append(TABLES[feed.raw_table], rows), Append(TABLES["raw.ingested_files"], ledger)],
        Provenance(asset=feed.raw_table, run_id=run_id, code_version="1", partition=file.name),
    )
    result.snapshot_id = commit.snapshot_id
    result.rows += int(row["rows"])
    (result.ingested if row["rows"] else result.empty).append(file.name)
    if report.unknown_columns:
        unknown = ", ".join(report.unknown_columns)
        result.notes.append(f"{file.name}: columns not in the feed's format, left out: {unknown}")


def _store_time_zones(lakehouse: Lakehouse, form: FeedSettings, now: datetime) -> dict[str, str]:
    """The time zones of the stores, where the business day of a feed's rows depends on them.

    They are cleaned from the raw table, as a store may have arrived in the same run as its sales.
    """
    if form.business_date_from is None or form.time_zone is None:
        return {}
    stores = clean_feed(
        "stores",
        lakehouse.read("raw.stores"),
        references=References(),
        now=now,
        today=now.date(),
        customer_key=None,
        form=lakehouse.settings.feed("stores"),
    )
    return time_zones_of(stores.clean)


def _is_known(lakehouse: Lakehouse, feed: str, file_id: str) -> bool:
    # By feed, since a file may first have been dropped into the folder of another one by mistake.
    known = lakehouse.query("SELECT count(*) FROM raw.ingested_files WHERE feed = ? AND file_id = ?", [feed, file_id])
    return bool(known.item())
