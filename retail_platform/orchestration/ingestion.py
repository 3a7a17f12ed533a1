"""Taking in what lies in the landing zone: each content once per feed, rows and ledger in one transaction.

Here: which files are new, complete and not yet known, the ledger, and the note of every file that was left out. Not
here: how a file is copied (`sources/files.py`), read (`sources/reading.py`) and compared with its feed
(`sources/columns.py`).
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import takewhile
from pathlib import Path

import polars as pl

from retail_platform.cleaning import References, clean_feed, time_zones_of
from retail_platform.contracts import FEEDS, TABLES, Feed
from retail_platform.contracts.feeds import contract_version, raw_table
from retail_platform.lakehouse import (
    Append,
    LakeError,
    Lakehouse,
    ParquetFiles,
    Provenance,
    Query,
    ReplaceSlices,
    Write,
)
from retail_platform.lakehouse.locks import table_locks
from retail_platform.monitoring.alerts import alert
from retail_platform.settings import FeedSettings, Settings
from retail_platform.sources.columns import SAMPLE_ROWS, Difference, FileColumns, differences, unreadable_columns
from retail_platform.sources.extracts import PREFIX as EXTRACT
from retail_platform.sources.extracts import extract_of
from retail_platform.sources.files import (
    BrokenFile,
    IntakeError,
    LandingFile,
    SpooledFile,
    StillGrowing,
    copy_to_spool,
    discover,
    settled,
)
from retail_platform.sources.reading import ReadFile, file_reader

Progress = Callable[[str], None]

LEFT_OUT = TABLES["raw.files_left_out"]
LEDGER = TABLES["raw.ingested_files"]

FILES_AT_ONCE, BYTES_AT_ONCE = 32, 64 * 1024**2
"""Small files are committed together: a commit costs as much as reading ten of them."""

ROWS_OF_A_LARGE_FILE = 500_000
"""The rows of a large file become a file of the raw table as they were read; those of small ones are written together,
since a table of many small files is slow to read."""


@dataclass
class Ingestion:
    """What became of every file of a feed in one go. `known` were taken in before; `growing` are not complete yet."""

    feed: str
    ingested: list[str] = field(default_factory=list)
    rows: int = 0
    known: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    growing: list[str] = field(default_factory=list)
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
            repeated=[*self.repeated, *later.repeated],
            growing=later.growing,
            ignored=later.ignored,
            broken=later.broken,
            notes=[*self.notes, *later.notes],
            snapshot_id=later.snapshot_id or self.snapshot_id,
        )


def ingest_feed(lakehouse: Lakehouse, feed_name: str, run_id: str, progress: Progress = lambda _: None) -> Ingestion:
    """Take in every new file of a feed. Broken files are named in the result and left where they are.

    A file that was written to a moment ago is watched for `intake.quiet_seconds`, and left for the next time if it
    still changes. Raises `LakeError` or `IntakeError` where files could not be taken in for a reason that does not
    lie in them; what was taken in before stays, and the rest follows the next time.
    """
    with _spool(lakehouse.settings, feed_name) as spool:
        intake = _Intake(lakehouse, FEEDS[feed_name], run_id, spool)
        for file in intake.complete_files():
            intake.take(file)
            progress(f"{feed_name}: {file.name}")
        intake.commit()
        intake.note_files_left_out()
    return intake.result


def ingest_again(lakehouse: Lakehouse, feed_name: str, file_id: str, run_id: str) -> None:
    """Read a file that was taken in before again, by the settings of now: its raw rows and its row in the ledger are
    replaced in one transaction. It keeps its time of arrival, and so its place among the files that correct each other.

    Raises `IntakeError` where the landing zone has the content no longer, `BrokenFile` where it cannot be read.
    """
    with _spool(lakehouse.settings, feed_name) as spool:
        _Intake(lakehouse, FEEDS[feed_name], run_id, spool).take_again(file_id)


def waiting_files(lakehouse: Lakehouse) -> dict[str, list[LandingFile]]:
    """By feed, the files that nobody has looked into as they are now: not taken in, and not refused either."""
    files = {feed: discover(lakehouse.settings.landing, feed)[0] for feed in FEEDS}
    with_files = [feed for feed, there in files.items() if there]
    if not with_files:
        return files
    try:
        memories = _Memory.of(lakehouse, with_files)
    except LakeError:
        return files
    return {feed: [file for file in there if not memories[feed].has_judged(file)] for feed, there in files.items()}


@dataclass
class _Memory:
    """What the lake knows of the files of a feed.

    `names` gives the name under which a content was taken in. `taken_in` and `left_out` give the time of the last look
    at a file with this name, size and time, and `reasons` the last outcome and reason of a name.
    """

    names: dict[str, str] = field(default_factory=dict)
    taken_in: dict[tuple[str, int, datetime], datetime] = field(default_factory=dict)
    left_out: dict[tuple[str, int, datetime], tuple[str, datetime]] = field(default_factory=dict)
    reasons: dict[str, tuple[str, str, int | None, datetime | None]] = field(default_factory=dict)
    last_columns: FileColumns | None = None
    last_name: str = ""

    @classmethod
    def of(cls, lakehouse: Lakehouse, feeds: Sequence[str]) -> dict[str, "_Memory"]:
        """By feed. Asked for all of them at once, since a question takes longer than its answer."""
        # Of the columns of files, those of the newest alone: a ledger of years has thousands of them.
        ledger = lakehouse.query(
            f"""
            SELECT feed, file_id, file_name, bytes, file_modified_at, ingested_at, CASE WHEN file_id = arg_max(
                file_id, ingested_at
            ) FILTER (WHERE rows > 0 AND file_columns IS NOT NULL) OVER (PARTITION BY feed) THEN file_columns END
            FROM {LEDGER.name} WHERE list_contains(?, feed) ORDER BY ingested_at
            """,
            [feeds],
        )
        left_out = lakehouse.read(
            LEFT_OUT.name,
            columns=["feed", "file_name", "bytes", "file_modified_at", "outcome", "reason", "seen_at"],
            where="list_contains(?, feed) ORDER BY seen_at",
            parameters=[feeds],
        )
        memories = {feed: cls() for feed in feeds}
        for feed, file_id, name, size, modified, at, columns in ledger.iter_rows():
            memories[feed].names[file_id] = name
            memories[feed].taken_in[name, size, modified] = at
            if columns:
                memories[feed].last_columns, memories[feed].last_name = FileColumns.from_json(columns), name
        for feed, name, size, modified, outcome, reason, at in left_out.iter_rows():
            memories[feed].left_out[name, size, modified] = outcome, at
            memories[feed].reasons[name] = outcome, reason, size, modified
        return memories

    def has_taken_in(self, file: LandingFile) -> bool:
        """Whether the file is in the ledger as it lies there. Its content need not be read again: the file system
        would have noted a change since."""
        at = self.taken_in.get(_facts(file))
        return at is not None and file.changed_at <= at

    def has_seen_repeated(self, file: LandingFile) -> bool:
        outcome, at = self.left_out.get(_facts(file), ("", datetime.min))  # noqa: DTZ901
        return outcome == "repeated" and file.changed_at <= at

    def has_judged(self, file: LandingFile) -> bool:
        """Whether the file was taken in, refused or recognised as it lies there, by name, size and time."""
        return _facts(file) in self.taken_in or self.left_out.get(_facts(file), ("growing",))[0] != "growing"


@dataclass(frozen=True)
class _Read:
    """A file that was read and waits for its commit."""

    file: LandingFile
    rows_file: Path
    rows: int
    ledger: dict[str, object]
    alerts: list[pl.DataFrame]
    notes: list[str]


class _Intake:
    """One go over the files of a feed. Nobody else takes in files of the feed meanwhile."""

    def __init__(self, lakehouse: Lakehouse, feed: Feed, run_id: str, spool: Path) -> None:
        self.result = Ingestion(feed.name)
        self._lakehouse, self._settings = lakehouse, lakehouse.settings
        self._reader = file_reader(lakehouse.settings.intake)
        self._feed, self._run_id, self._spool = feed, run_id, spool
        self._pending: list[_Read] = []
        self._left_out: list[dict[str, object]] = []

    @cached_property
    def _memory(self) -> _Memory:
        """Not asked for where no file lies: most retailers have only some of the feeds."""
        return _Memory.of(self._lakehouse, [self._feed.name])[self._feed.name]

    def complete_files(self) -> Iterator[LandingFile]:
        """Files that are new, by name; those that still change are noted and left."""
        files, ignored = discover(self._settings.landing, self._feed.name)
        for other in ignored:
            self.result.ignored.append(f"{other.name}: {other.reason}")
            self._leave_out(other.name, "ignored", other.reason)
        new = []
        for file in files:
            if self._memory.has_taken_in(file) or self._memory.has_seen_repeated(file):
                self.result.known.append(file.name)
            else:
                new.append(file)
        quiet = self._quiet(new)
        for file in new:
            if file in quiet:
                yield file
            else:
                self._still_growing(file)

    def take(self, file: LandingFile) -> None:
        """Take in one file, or note why not."""
        # The time before the copy: a change that the copy may have missed is later.
        now = _now()
        try:
            spooled = copy_to_spool(file, self._spool, max_bytes=self._settings.intake.max_file_bytes)
        except StillGrowing:
            self._still_growing(file)
            return
        except BrokenFile as broken:
            self._refuse(file, None, broken)
            return
        try:
            if spooled.file_id in self._memory.names:
                self._recognise(spooled, now)
            else:
                self._read(spooled, now)
        except BrokenFile as broken:
            self._refuse(file, spooled.file_id, broken)
        finally:
            spooled.path.unlink()
        if len(self._pending) >= FILES_AT_ONCE or sum(read.file.bytes for read in self._pending) >= BYTES_AT_ONCE:
            self.commit()

    def commit(self, *, again: bool = False) -> None:
        """Commit the files that were read: rows, ledger and alerts in one transaction, and in the place of those of
        the same files where they were read `again`."""
        if not self._pending:
            return
        table = raw_table(self._feed, self._settings.feed(self._feed.name).extra_columns)
        ledger = pl.DataFrame([read.ledger for read in self._pending], schema=LEDGER.polars_schema)
        alerts = [alert for read in self._pending for alert in read.alerts]
        with_rows = [read for read in self._pending if read.rows]
        writes: list[Write] = [Append(LEDGER, ledger)]
        if again:
            ids = [{"file_id": file_id} for file_id in ledger["file_id"]]
            of_feed = [{"feed": self._feed.name, **file_id} for file_id in ids]
            writes = [ReplaceSlices(LEDGER, ledger, of_feed), ReplaceSlices(table, table.empty(), ids)]
        large = [read.rows_file for read in with_rows if read.rows >= ROWS_OF_A_LARGE_FILE]
        small = [read.rows_file for read in with_rows if read.rows < ROWS_OF_A_LARGE_FILE]
        if large:
            writes.append(Append(table, ParquetFiles(tuple(large))))
        if small:
            writes.append(Append(table, Query.of_parquet(*small)))
        if alerts:
            writes.append(Append(TABLES["monitoring.alerts"], pl.concat(alerts)))
        names = [read.file.name for read in self._pending]
        provenance = Provenance(
            asset=self._feed.raw_table,
            run_id=self._run_id,
            code_version=contract_version(self._feed, self._settings.feed(self._feed.name).extra_columns),
            partition=names[0] if len(names) == 1 else f"{len(names)} files, {names[0]} to {names[-1]}",
        )
        self.result.snapshot_id = self._lakehouse.commit(writes, provenance).snapshot_id
        for read in self._pending:
            self.result.rows += read.rows
            self.result.notes += read.notes
            (self.result.ingested if read.rows else self.result.empty).append(read.file.name)
            read.rows_file.unlink(missing_ok=True)
        self._pending = []

    def take_again(self, file_id: str) -> None:
        """Take in the content of `file_id` a second time, in the place of the first."""
        known = self._lakehouse.read(
            LEDGER.name, where="feed = ? AND file_id = ?", parameters=[self._feed.name, file_id]
        )
        before = known.row(0, named=True)
        files, _ = discover(self._settings.landing, self._feed.name)
        # It may have another name by now, but not another size.
        same_size = [file for file in files if file.bytes == before["bytes"]]
        for file in sorted(same_size, key=lambda file: file.name != before["file_name"]):
            try:
                spooled = copy_to_spool(file, self._spool, max_bytes=self._settings.intake.max_file_bytes)
            except StillGrowing:
                continue
            if spooled.file_id == file_id:
                self._read(spooled, before["ingested_at"])
                self.commit(again=True)
                return
        raise IntakeError(
            f"landing file {self._feed.name}/{before['file_name']} is not in the landing zone any more as it was taken "
            f"in; put it back below {self._settings.landing / self._feed.name} and try again"
        )

    def note_files_left_out(self) -> None:
        """Write down every file that was left out, unless the same was written before."""
        if self._left_out:
            rows = pl.DataFrame(self._left_out, schema=LEFT_OUT.polars_schema)
            provenance = Provenance(asset=LEFT_OUT.name, run_id=self._run_id, code_version="1")
            self._lakehouse.commit([Append(LEFT_OUT, rows)], provenance)

    def _quiet(self, files: Sequence[LandingFile]) -> set[LandingFile]:
        """Those that were not written to for a while, waiting for that where need be.

        The clock of a file server may be wrong, so a file with a young time is judged by looking twice.
        """
        now, quiet_seconds = _now(), self._settings.intake.quiet_seconds
        if not quiet_seconds:
            return set(files)
        # Extracts are ours, and get their names when they are whole.
        quiet = {f for f in files if f.is_quiet(now, quiet_seconds) or f.path.name.startswith(EXTRACT)}
        if len(quiet) < len(files):
            time.sleep(quiet_seconds)
            again, _ = discover(self._settings.landing, self._feed.name)
            quiet.update(settled(files, again))
        return quiet

    def _read(self, spooled: SpooledFile, now: datetime) -> None:
        file, feed = spooled.file, self._feed
        extract = extract_of(spooled.path, file.path.name)
        form = self._settings.form_of_extracts(feed.name) if extract else self._settings.feed(feed.name)
        read = self._reader.read(
            spooled,
            feed,
            form,
            ingested_at=now,
            first_date=self._settings.start_date,
            today=now.date(),
            store_time_zones=store_time_zones(self._lakehouse, form, now),
        )
        found = self._differences(read, form) if read.rows else []
        ledger = {
            "file_id": spooled.file_id,
            "feed": feed.name,
            "file_name": file.name,
            "bytes": file.bytes,
            "rows": read.rows,
            "first_date": read.first_date,
            "last_date": read.last_date,
            "status": "ingested" if read.rows else "empty",
            "run_id": self._run_id,
            "file_modified_at": file.modified_at,
            "ingested_at": now,
            "source": extract.source if extract else None,
            "extracted_after": extract.after if extract else None,
            "extracted_to": extract.to if extract else None,
            "contract_version": contract_version(feed, form.extra_columns),
            "file_columns": read.columns.as_json(),
        }
        self._pending.append(
            _Read(
                file,
                read.path,
                read.rows,
                ledger,
                alerts=[self._alert(file, difference, now) for difference in found if difference.alert],
                notes=[f"{file.name}: {difference.message}" for difference in found],
            )
        )
        self._memory.names[spooled.file_id] = file.name
        if read.rows:
            self._memory.last_columns, self._memory.last_name = read.columns, file.name

    def _differences(self, read: ReadFile, form: FeedSettings) -> list[Difference]:
        memory = self._memory
        sample = pl.read_parquet(read.path, n_rows=SAMPLE_ROWS, glob=False)
        return [
            *differences(self._feed, form, read.columns, memory.last_columns, memory.last_name),
            *unreadable_columns(self._feed, form, sample),
        ]

    def _alert(self, file: LandingFile, difference: Difference, now: datetime) -> pl.DataFrame:
        message = f"landing file {self._feed.name}/{file.name}: {difference.message}"
        return alert(
            severity="warning", subject=self._feed.raw_table, message=message, run_id=self._run_id, raised_at=now
        )

    def _recognise(self, spooled: SpooledFile, now: datetime) -> None:
        """Note a file whose content is in the ledger. One that was delivered again under its own name is noted as well:
        it has another time than the ledger knows, and would be asked for again and again."""
        name, first = spooled.file.name, self._memory.names[spooled.file_id]
        if name == first and _facts(spooled.file) in self._memory.taken_in:
            self.result.known.append(name)
            return
        if not spooled.file.bytes and name != first:
            reason = "empty, as others were before"
            self.result.empty.append(name)
        else:
            reason = "the same content was taken in " + ("before under this name" if name == first else f"as {first}")
            since = takewhile(lambda taken_in: taken_in[0] != spooled.file_id, reversed(self._memory.names.items()))
            if name in (known for _, known in since):
                reason += ", and other content under this name since; to go back to it, land it with a change"
            self.result.repeated.append(f"{name}: {reason}")
        self._leave_out(name, "repeated", reason, spooled.file, spooled.file_id, seen_at=now)

    def _refuse(self, file: LandingFile, file_id: str | None, broken: BrokenFile) -> None:
        self.result.broken.append(str(broken))
        self._leave_out(file.name, "refused", f"{'; '.join(broken.problems)}. {broken.remedy}", file, file_id)

    def _still_growing(self, file: LandingFile) -> None:
        reason = "it is still being written or copied; it is taken in once it is quiet"
        self.result.growing.append(f"{file.name}: {reason}")
        self._leave_out(file.name, "growing", reason, file)

    def _leave_out(
        self,
        name: str,
        outcome: str,
        reason: str,
        file: LandingFile | None = None,
        file_id: str | None = None,
        seen_at: datetime | None = None,
    ) -> None:
        """Note a file that is not taken in, unless that was noted before. A repeated one is here only where it has
        changed since it was seen."""
        size, modified_at = (file.bytes, file.modified_at) if file else (None, None)
        if outcome != "repeated" and self._memory.reasons.get(name) == (outcome, reason, size, modified_at):
            return
        row: dict[str, object] = {
            "feed": self._feed.name,
            "file_name": name,
            "outcome": outcome,
            "reason": reason,
            "file_id": file_id,
            "bytes": size,
            "file_modified_at": modified_at,
            "run_id": self._run_id,
            "seen_at": seen_at or _now(),
        }
        self._left_out.append(row)


@contextmanager
def _spool(settings: Settings, feed: str) -> Iterator[Path]:
    """A folder for copies of this feed's files, which nobody else uses meanwhile.

    The lock makes looking into the ledger and writing to it one step, for every file of the feed.
    """
    folder = settings.home / "spool" / f"landing-{feed}"
    with table_locks(settings, [f"landing-{feed}"]):
        # What a killed process left.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise IntakeError(f"landing files cannot be copied to {folder}: {error.strerror}; mend that") from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def store_time_zones(lakehouse: Lakehouse, form: FeedSettings, now: datetime) -> dict[str, str]:
    """The time zones of the stores, where the business day of a feed's rows depends on them.

    They are cleaned from the raw table, as a store may have arrived in the same run as its sales.
    """
    if form.business_date_from is None or form.time_zone is None:
        return {}
    stores = clean_feed(
        "stores",
        lakehouse.read("raw.stores", columns=TABLES["raw.stores"].polars_schema.names()),
        references=References(),
        now=now,
        today=now.date(),
        customer_key=None,
        form=lakehouse.settings.feed("stores"),
    )
    return time_zones_of(stores.clean)


def _facts(file: LandingFile) -> tuple[str, int, datetime]:
    return file.name, file.bytes, file.modified_at


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
