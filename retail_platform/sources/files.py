"""The landing zone: which files lie there, whether they can be taken in, and their rows as text with provenance.

Here: CSV (plain or gzip) and Parquet files of a feed, read exactly as they are. Not here: what a row means or
whether it is good (`cleaning/`), and which files were taken in before (the ledger, `raw.ingested_files`).

CSV is read by Arrow and not by Polars: Arrow refuses a row with too few fields, which Polars fills with nulls.
Files are handed over as open file objects, so that no reader can take a `*` in a file name for a pattern.
"""

import csv
import gzip
import hashlib
import io
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl
from polars.io.plugins import register_io_source

from retail_platform.cleaning.text import as_text, own_day
from retail_platform.contracts.feeds import RAW_TABLES, Feed
from retail_platform.settings import FeedSettings

ENDINGS = (".csv", ".csv.gz", ".parquet")

# A field longer than this is refused: it is nearly always a quote that was never closed.
_CSV_BLOCK_BYTES = 8 * 1024 * 1024
_PARQUET_BATCH_ROWS = 64 * 1024
_HASH_BLOCK_BYTES = 1024 * 1024


class BrokenFile(Exception):
    """A landing file cannot be taken in; the message names the file, every problem and the remedy."""

    def __init__(self, file: "LandingFile", problems: list[str], remedy: str) -> None:
        super().__init__(f"landing file {file.feed}/{file.name}: {'; '.join(problems)}. {remedy}")
        self.file = file
        self.problems = problems
        self.remedy = remedy


@dataclass(frozen=True)
class LandingFile:
    """A file that may be taken in. `name` is its path below the feed's folder; `modified_at` is UTC."""

    feed: str
    path: Path
    name: str
    bytes: int
    modified_at: datetime


@dataclass(frozen=True)
class IgnoredFile:
    """A file in a feed's folder that is not taken in, and why."""

    feed: str
    path: Path
    name: str
    reason: str


@dataclass(frozen=True)
class FileReport:
    """How a file's columns relate to its feed. `unknown_columns` are not taken in."""

    unknown_columns: tuple[str, ...]
    missing_optional_columns: tuple[str, ...]


def discover(landing: Path, feed: str) -> tuple[list[LandingFile], list[IgnoredFile]]:
    """The files of a feed below `landing/<feed>/`, by name; dot-files are passed over without a word.

    A feed without a folder has no files. Symbolic links are not followed, since they could lead out of the landing
    zone.
    """
    folder = landing / feed
    found: list[LandingFile] = []
    ignored: list[IgnoredFile] = []
    for path in sorted(_walk(folder)):
        name = path.relative_to(folder).as_posix()
        reason = _reason_to_ignore(path, name)
        if reason:
            printable = os.fsencode(name).decode("utf-8", errors="replace")
            ignored.append(IgnoredFile(feed, path, printable, reason))
            continue
        facts = path.stat()
        modified_at = datetime.fromtimestamp(facts.st_mtime, UTC).replace(tzinfo=None)
        found.append(LandingFile(feed, path, name, facts.st_size, modified_at))
    return found, ignored


def content_hash(path: Path) -> str:
    """SHA-256 of the file's bytes as they lie there, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def inspect_landing_file(file: LandingFile, feed: Feed, settings: FeedSettings) -> FileReport:
    """Read the file's header and compare it with the feed.

    Raises `BrokenFile` where the file is not of its kind, lacks required columns or names a column twice. An empty
    file has no columns to complain about.
    """
    header = _read_header(file, feed, settings)
    if not header:
        return FileReport((), ())
    _refuse_broken_header(file, feed, settings, header)
    wanted = {_name_in_file(name, settings): name for name in feed.column_names}
    return FileReport(
        unknown_columns=tuple(name for name in header if name not in wanted),
        missing_optional_columns=tuple(name for in_file, name in wanted.items() if in_file not in header),
    )


def read_landing_file(
    file: LandingFile,
    feed: Feed,
    settings: FeedSettings,
    *,
    file_id: str,
    ingested_at: datetime,
    first_date: date,
    today: date,
    store_time_zones: Mapping[str, str] | None = None,
) -> pl.LazyFrame:
    """The file's rows as the feed's raw table wants them: business columns as text, plus provenance.

    CSV fields are taken as they stand, an empty one as null; Parquet values are written out in the form that the
    feed declares, so that cleaning reads them back as the same values. `row_number` counts data rows from 1 in file
    order. `partition_date` is the row's own date where that is readable and lies from `first_date` to `today`, else
    `today`. `store_time_zones` are needed where that date comes from a time in a declared zone.

    Raises `BrokenFile` at once for a broken header. Broken content (ragged rows, text that is not UTF-8, a
    truncated archive) raises it while the frame is collected, before the last row is out: a writer that commits
    only whole files keeps nothing of it.
    """
    inspect_landing_file(file, feed, settings)
    schema = RAW_TABLES[feed.name].polars_schema
    partition = pl.lit(today, pl.Date)
    if feed.date_column:
        day = own_day(feed, settings, store_time_zones or {})
        partition = pl.when(day.is_between(first_date, today)).then(day).otherwise(partition)

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        rows_before = 0
        for text in _text_batches(file, feed, settings):
            if n_rows is not None and rows_before >= n_rows:
                return
            batch = text.with_columns(
                pl.lit(file_id).alias("file_id"),
                pl.int_range(rows_before + 1, rows_before + 1 + text.height, dtype=pl.Int64).alias("row_number"),
                partition.alias("partition_date"),
                pl.lit(ingested_at, pl.Datetime("us")).alias("ingested_at"),
            ).select(schema.names())
            if n_rows is not None:
                batch = batch.head(n_rows - rows_before)
            rows_before += text.height
            if with_columns is not None:
                batch = batch.select(with_columns)
            if predicate is not None:
                batch = batch.filter(predicate)
            yield batch

    return register_io_source(batches, schema=schema, validate_schema=True)


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _reason_to_ignore(path: Path, name: str) -> str | None:
    if path.is_symlink():
        return "a symbolic link; put the file itself here"
    if not path.is_file():
        return "not a regular file"
    if not path.name.lower().endswith(ENDINGS):
        return f"its name does not end in {', '.join(ENDINGS)}"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return None


def _name_in_file(column: str, settings: FeedSettings) -> str:
    return settings.columns.get(column, column)


def _is_parquet(file: LandingFile) -> bool:
    return file.path.name.lower().endswith(".parquet")


def _open_csv(file: LandingFile) -> BinaryIO:
    if file.path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(file.path, "rb"))
    return file.path.open("rb")


def _read_header(file: LandingFile, feed: Feed, settings: FeedSettings) -> list[str]:
    """The file's column names; none where the file is empty."""
    if file.bytes == 0:
        return []
    if _is_parquet(file):
        return _read_parquet_header(file, feed, settings)
    try:
        with _open_csv(file) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            return next((row for row in csv.reader(text, delimiter=settings.delimiter) if row), [])
    except UnicodeDecodeError:
        raise BrokenFile(file, ["not UTF-8 text"], "Save it as CSV in UTF-8.") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as damage:
        raise BrokenFile(file, [f"not a whole gzip file ({damage})"], "Copy it again.") from None
    except csv.Error as damage:
        raise BrokenFile(file, [f"not a CSV file ({damage})"], "Save it as CSV in UTF-8.") from None


def _read_parquet_header(file: LandingFile, feed: Feed, settings: FeedSettings) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.path.open("rb") as stream:
            arrow_schema = pq.ParquetFile(stream).schema_arrow
    except (pa.ArrowException, OSError) as damage:
        raise BrokenFile(file, [f"not a whole Parquet file ({damage})"], "Copy it again.") from None
    wanted = {_name_in_file(name, settings) for name in feed.column_names}
    without_text = [
        f"column {field.name} is of the type {field.type}, which has no text form"
        for field in arrow_schema
        if field.name in wanted and (pa.types.is_nested(field.type) or _is_binary(field.type))
    ]
    if without_text:
        raise BrokenFile(file, without_text, "Write these columns as text, numbers, dates or times.")
    return list(arrow_schema.names)


def _is_binary(arrow_type: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(
        types.is_binary(arrow_type) or types.is_large_binary(arrow_type) or types.is_fixed_size_binary(arrow_type)
    )


def _refuse_broken_header(file: LandingFile, feed: Feed, settings: FeedSettings, header: list[str]) -> None:
    missing = [name for name in _required_columns(feed, settings) if _name_in_file(name, settings) not in header]
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    problems, remedies = [], []
    if missing:
        names = ", ".join(
            name
            if name == _name_in_file(name, settings)
            else f"{name} (named {_name_in_file(name, settings)} in retail.toml)"
            for name in missing
        )
        problems.append(f"required columns are missing: {names}; the file has: {', '.join(header)}")
        remedies.append(_remedy_for_missing(feed, settings, missing, header))
    if twice:
        problems.append(f"column names stand more than once in the header: {', '.join(twice)}")
        remedies.append("Give each column a name of its own.")
    if problems:
        raise BrokenFile(file, problems, " ".join(remedies))


def _required_columns(feed: Feed, settings: FeedSettings) -> list[str]:
    """With a declared source of the business day, the files need that and not the day itself."""
    instead = {feed.date_column: settings.business_date_from} if settings.business_date_from else {}
    return [instead.get(name) or name for name in feed.required_columns]


def _remedy_for_missing(feed: Feed, settings: FeedSettings, missing: list[str], header: list[str]) -> str:
    other_delimiters = [d for d in (",", ";", "\t", "|") if d != settings.delimiter and d in header[0]]
    if len(header) == 1 and other_delimiters:
        seems = f"The fields seem to be separated by {other_delimiters[0]!r}"
        return f"{seems}: set feeds.{feed.name}.delimiter in retail.toml."
    return (
        "Add them to the file, or where they have other names there, say so in retail.toml under "
        f'[feeds.{feed.name}.columns], such as {missing[0]} = "name in the file".'
    )


def _text_batches(file: LandingFile, feed: Feed, settings: FeedSettings) -> Iterator[pl.DataFrame]:
    """The business columns as text under the contract's names, batch by batch in file order."""
    header = _read_header(file, feed, settings)
    if not header:
        return
    batches = (
        _parquet_batches(file, feed, settings, header) if _is_parquet(file) else _csv_batches(file, settings, header)
    )
    columns = []
    for name in feed.column_names:
        in_file = _name_in_file(name, settings)
        columns.append(pl.col(in_file).alias(name) if in_file in header else pl.lit(None, pl.String).alias(name))
    for batch in batches:
        yield batch.select(columns)


def _csv_batches(file: LandingFile, settings: FeedSettings, header: list[str]) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.csv as pc

    ragged: list[Any] = []

    def remember(row: Any) -> str:
        ragged.append(row)
        return "error"

    named_once = [name for name, count in Counter(header).items() if count == 1]
    value: object = None
    try:
        with _open_csv(file) as stream:
            # Without threads Arrow knows the number of a ragged row; parsing is not slower for it.
            reader = pc.open_csv(
                stream,
                read_options=pc.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
                parse_options=pc.ParseOptions(
                    delimiter=settings.delimiter, newlines_in_values=True, invalid_row_handler=remember
                ),
                convert_options=pc.ConvertOptions(
                    column_types=dict.fromkeys(named_once, pa.large_string()),
                    include_columns=named_once,
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                frame = cast(pl.DataFrame, pl.from_arrow(batch))
                if frame.height and header[-1] in frame.columns:
                    value = frame[header[-1]][-1]
                yield frame
    except (gzip.BadGzipFile, EOFError, zlib.error) as damage:
        raise BrokenFile(file, [f"not a whole gzip file ({damage})"], "Copy it again.") from None
    except (pa.ArrowException, OSError) as damage:
        # That is how Arrow speaks of a header without a line end: no rows, and nothing wrong.
        if "Empty CSV file" in str(damage):
            return
        raise _broken_csv(file, ragged, damage) from None
    if isinstance(value, str) and value.endswith(("\n", "\r")):
        problem = f"a quotation mark in the column {header[-1]} is never closed"
        raise BrokenFile(file, [problem], "Close it, or double a quotation mark that belongs to the text.")


def _broken_csv(file: LandingFile, ragged: list[Any], damage: Exception) -> BrokenFile:
    if ragged:
        first = ragged[0]
        # Arrow counts the header as row 1.
        problem = (
            f"row {first.number - 1} has {first.actual_columns} fields where the header has {first.expected_columns}"
        )
        return BrokenFile(file, [problem], "Quote fields that hold the delimiter, a quotation mark or a line break.")
    if "UTF8" in str(damage):
        return BrokenFile(file, [f"not UTF-8 text ({damage})"], "Save it as CSV in UTF-8.")
    if "straddl" in str(damage):
        problem = f"a row is longer than {_CSV_BLOCK_BYTES // 1024**2} MB"
        return BrokenFile(file, [problem], "Look for a quotation mark that is never closed.")
    return BrokenFile(file, [f"not a CSV file ({damage})"], "Save it as CSV in UTF-8, or copy it again.")


def _parquet_batches(
    file: LandingFile, feed: Feed, settings: FeedSettings, header: list[str]
) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = list(dict.fromkeys(_name_in_file(name, settings) for name in feed.column_names))
    try:
        with file.path.open("rb") as stream:
            parquet = pq.ParquetFile(stream, page_checksum_verification=True)
            for batch in parquet.iter_batches(_PARQUET_BATCH_ROWS, columns=[name for name in wanted if name in header]):
                frame = cast(pl.DataFrame, pl.from_arrow(batch))
                yield frame.select(as_text(pl.col(name), dtype, settings) for name, dtype in frame.schema.items())
    except (pa.ArrowException, OSError) as damage:
        raise BrokenFile(file, [f"not a whole Parquet file ({damage})"], "Copy it again.") from None
