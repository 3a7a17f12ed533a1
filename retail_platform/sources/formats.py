"""The formats of landing files: CSV, JSON Lines and Parquet as batches of text, column by column as received.

Here: decoding, parsing, and the caps on what a file may become once it is unpacked. Runs in the child process
(`reader_process.py`), which gets what is wanted of a file as a `Job`. Not here: which files there are (`files.py`), and
whether their columns suit the feed (`columns.py`).

CSV is read by Arrow and not by Polars: Arrow refuses a row with too few fields, which Polars fills with nulls. JSON is
read by the standard library, which alone hands over a number as it is written.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import polars as pl

from retail_platform.cleaning.text import as_text
from retail_platform.settings import FeedSettings

MEGABYTE = 1024 * 1024
LONGEST_ROW_BYTES = 4 * MEGABYTE
"""Rows up to this length are read; Arrow finds longer ones when it looks at the next block as well. They are nearly
always a quotation mark that was never closed."""

_TAIL_BYTES = 1024
_JSON_BATCH_ROWS = 64 * 1024
_PARQUET_BATCH_ROWS = 256 * 1024
_PARQUET_BATCH_BYTES = 64 * MEGABYTE
_UNPACKED_FREELY_BYTES = 64 * MEGABYTE

_SIGNATURES = {
    b"\x1f\x8b": "compressed with gzip; let its name end in .gz, and compress it once only",
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"PK\x03\x04": "a zip archive or an Excel workbook; save it as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; use gzip, or none",
    b"BZh91AY&SY": "compressed with bzip2; use gzip, or none",
    b"\xfd7zXZ": "compressed with xz; use gzip, or none",
}
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Refusal(Exception):
    """A file cannot be read; `problem` and `remedy` are sentences for its supplier."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True)
class Caps:
    """What a file may become. Bytes are those of its text or of its uncompressed Parquet pages."""

    expanded_bytes: int
    expansion_ratio: float
    rows: int
    columns: int


@dataclass(frozen=True)
class Job:
    """A file to be read: `wanted` maps the columns of the raw table, in order, to their names in the file.

    `format` is csv, jsonl or parquet; `form` says how the feed writes text.
    """

    path: str
    format: str
    compressed: bool
    wanted: dict[str, str]
    form: FeedSettings
    caps: Caps


@dataclass(frozen=True)
class Batches:
    """A file that has been opened: its columns with their types, and its rows as batches of text.

    The columns of JSON Lines are those of the rows, so that list is whole only after the last batch.
    """

    columns: list[tuple[str, str]]
    rows: Iterator[pl.DataFrame]


def open_batches(job: Job) -> Batches:
    """Open a file of at least one byte and read its header.

    `rows` are frames with the columns `job.wanted`, all text, null where the file has no value. Raises `Refusal`
    here for what the header shows, and while the rows are read for the rest.
    """
    match job.format:
        case "csv":
            header = _csv_header(job)
            return Batches([(name, "text") for name in header], _csv_rows(job, header) if header else iter(()))
        case "jsonl":
            columns: list[tuple[str, str]] = []
            return Batches(columns, _json_rows(job, columns))
        case "parquet":
            fields = _parquet_fields(job)
            return Batches([(name, str(kind)) for name, kind in fields], _parquet_rows(job, [n for n, _ in fields]))
    raise ValueError(f"no reader for the format {job.format}")


def counted(batches: Iterator[pl.DataFrame], caps: Caps) -> Iterator[pl.DataFrame]:
    """The same batches, refused as soon as they hold too many rows."""
    rows = 0
    for batch in batches:
        rows += batch.height
        if rows > caps.rows:
            raise Refusal(f"more than {caps.rows:,} rows", "Split it, or raise intake.max_rows in retail.toml.")
        yield batch


# Text


class _Unpacked(io.RawIOBase):
    """The bytes of a text file, unpacked, in UTF-8 and without byte order mark, up to the caps."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        self._packed_bytes = max(Path(job.path).stat().st_size, 1)
        self._file = _opened(job)
        self._decoder = codecs.getincrementaldecoder(job.form.encoding)("strict")
        self._is_utf8 = codecs.lookup(job.form.encoding).name == "utf-8"
        self._bytes = 0
        self._rest = b""
        self.last_letter = b""
        """The last byte so far that is no line end."""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not self._rest:
            self._rest = self._next_block(len(view))
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def _next_block(self, size: int) -> bytes:
        while True:
            block = self._file.read(max(size, 64 * 1024))
            at_start, self._bytes = self._bytes == 0, self._bytes + len(block)
            if at_start:
                _refuse_other_format(block, self._job.form.encoding)
            if self._job.compressed:
                _refuse_bomb(self._bytes, self._packed_bytes, self._job.caps)
            text = block
            if not self._is_utf8:
                text = self._decoder.decode(block, final=not block).encode()
            if at_start:
                text = text.removeprefix(codecs.BOM_UTF8)
            if b"\0" in text:
                raise Refusal("it holds NUL characters", f"{_look_at_encoding(self._job)} or copy it again.")
            if text or not block:
                visible = text[-_TAIL_BYTES:].rstrip(b"\r\n") or text.rstrip(b"\r\n")
                self.last_letter = visible[-1:] or self.last_letter
                return text


def _opened(job: Job) -> BinaryIO:
    return cast(BinaryIO, gzip.open(job.path)) if job.compressed else Path(job.path).open("rb")


def _look_at_encoding(job: Job) -> str:
    return f"If it is not written in {job.form.encoding.upper()}, set feeds.<feed>.encoding in retail.toml,"


def _refuse_other_format(start: bytes, encoding: str) -> None:
    for signature, words in _SIGNATURES.items():
        if start.startswith(signature):
            what, _, remedy = words.partition("; ")
            raise Refusal(f"not text but {what}", f"{remedy[0].upper()}{remedy[1:]}.")
    for mark, written_in in _BYTE_ORDER_MARKS.items():
        declared = codecs.lookup(encoding).name.removesuffix("-sig").removesuffix("-le").removesuffix("-be")
        if start.startswith(mark):
            if declared != written_in:
                raise Refusal(
                    f"not {encoding.upper()} text: it begins with the byte order mark of {written_in.upper()}",
                    f'Save it in {encoding.upper()}, or set feeds.<feed>.encoding = "{written_in}" in retail.toml.',
                )
            return


def _refuse_bomb(expanded: int, packed: int, caps: Caps) -> None:
    if expanded > caps.expanded_bytes:
        raise Refusal(
            f"more than {caps.expanded_bytes // MEGABYTE:,} MB once it is unpacked",
            "Split it, or raise intake.max_expanded_bytes in retail.toml.",
        )
    if expanded > _UNPACKED_FREELY_BYTES and expanded / packed > caps.expansion_ratio:
        raise Refusal(
            f"more than {caps.expansion_ratio:g} times as large once it is unpacked",
            "Look where it comes from; land it uncompressed, or raise intake.max_expansion_ratio in retail.toml.",
        )


def _undecodable(job: Job) -> Refusal:
    """Where a text stops being of its encoding; the file is read again for it."""
    encoding = job.form.encoding
    remedy = f"Save it in {encoding.upper()}, or set feeds.<feed>.encoding in retail.toml to what it is written in."
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    lines = 1
    with _opened(job) as file:
        while True:
            block = file.read(MEGABYTE)
            try:
                lines += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                lines += error.object[: error.start].decode(encoding, errors="ignore").count("\n")
                return Refusal(f"not {encoding.upper()} text from line {lines} on ({error.reason})", remedy)
            if not block:
                return Refusal(f"not {encoding.upper()} text", remedy)


def _not_whole_gzip(damage: Exception) -> Refusal:
    return Refusal(f"not a whole gzip file ({damage})", "Copy it again.")


_BROKEN_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)


# CSV


def _csv_header(job: Job) -> list[str]:
    """The column names of a CSV file; none where it has no line with text."""
    try:
        with _Unpacked(job) as unpacked, io.TextIOWrapper(io.BufferedReader(unpacked), "utf-8", newline="") as text:
            header = next((row for row in csv.reader(_bounded_lines(text), delimiter=job.form.delimiter) if row), [])
    except UnicodeError:
        raise _undecodable(job) from None
    except _BROKEN_GZIP as damage:
        raise _not_whole_gzip(damage) from None
    except csv.Error as damage:
        raise Refusal(f"not a CSV file ({damage})", "Save it as CSV in UTF-8.") from None
    if len(header) > job.caps.columns:
        raise _too_many_columns(len(header), job.caps)
    return header


def _bounded_lines(text: io.TextIOWrapper) -> Iterator[str]:
    length = 0
    while line := text.readline(LONGEST_ROW_BYTES):
        length += len(line) if line.strip("\r\n") else 0
        if length >= LONGEST_ROW_BYTES:
            raise _too_long_row()
        yield line


def _too_long_row() -> Refusal:
    return Refusal(
        f"a row is longer than {LONGEST_ROW_BYTES // MEGABYTE} MB", "Look for a quotation mark that is never closed."
    )


def _too_many_columns(count: int, caps: Caps) -> Refusal:
    return Refusal(
        f"{count:,} columns, more than {caps.columns:,}",
        "Look for a missing line end, or raise intake.max_columns in retail.toml.",
    )


def _csv_rows(job: Job, header: list[str]) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.csv as pc

    ragged: list[Any] = []

    def remember(row: Any) -> str:
        ragged.append(row)
        return "error"

    # Names that the feed does not know may stand twice; Arrow cannot tell such columns apart.
    named_once = {name for name, count in Counter(header).items() if count == 1}
    taken = [name for name in dict.fromkeys([*job.wanted.values(), header[-1]]) if name in named_once]
    last_value: object = None
    try:
        with _Unpacked(job) as unpacked:
            # Without threads Arrow knows the number of a ragged row; parsing is not slower for it.
            reader = pc.open_csv(
                unpacked,
                read_options=pc.ReadOptions(use_threads=False, block_size=LONGEST_ROW_BYTES),
                parse_options=pc.ParseOptions(
                    delimiter=job.form.delimiter, newlines_in_values=True, invalid_row_handler=remember
                ),
                convert_options=pc.ConvertOptions(
                    column_types=dict.fromkeys(named_once, pa.large_string()),
                    include_columns=taken,
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            for batch in reader:
                frame = cast(pl.DataFrame, pl.from_arrow(batch))
                if frame.height and header[-1] in frame.columns:
                    last_value = frame[header[-1]][-1]
                yield frame.select(_wanted(job, frame.columns))
    except UnicodeError:
        raise _undecodable(job) from None
    except _BROKEN_GZIP as damage:
        raise _not_whole_gzip(damage) from None
    except MemoryError:
        raise
    except (pa.ArrowException, OSError) as damage:
        # That is how Arrow speaks of a header without a line end: no rows, and nothing wrong.
        if "Empty CSV file" in str(damage):
            return
        raise _broken_csv(job, ragged, damage) from None
    # A text may end with a line end, but then a quotation mark follows.
    if isinstance(last_value, str) and last_value.endswith(("\n", "\r")) and unpacked.last_letter != b'"':
        raise Refusal(
            f"a quotation mark in the column {header[-1]} is never closed",
            "Close it, or double a quotation mark that belongs to the text.",
        )


def _broken_csv(job: Job, ragged: list[Any], damage: Exception) -> Refusal:
    if ragged:
        first = ragged[0]
        # Arrow counts the header as row 1.
        return Refusal(
            f"row {first.number - 1} has {first.actual_columns} fields where the header has {first.expected_columns}",
            "Quote fields that hold the delimiter, a quotation mark or a line break.",
        )
    if "UTF8" in str(damage):
        return _undecodable(job)
    if "straddl" in str(damage):
        return _too_long_row()
    return Refusal(f"not a CSV file ({damage})", "Save it as CSV in UTF-8, or copy it again.")


def _wanted(job: Job, there: Sequence[str]) -> list[pl.Expr]:
    """The wanted columns under their names in the raw table."""
    return [
        (pl.col(in_file).cast(pl.String) if in_file in there else pl.lit(None, pl.String)).alias(name)
        for name, in_file in job.wanted.items()
    ]


# JSON Lines


class _Number(str):
    """A JSON number as it is written."""

    __slots__ = ()


def _json_rows(job: Job, columns: list[tuple[str, str]]) -> Iterator[pl.DataFrame]:
    """One object per line. Numbers stay as they are written, true and false are those words, null is no value."""
    decode = json.JSONDecoder(
        object_pairs_hook=_refuse_equal_keys, parse_int=_Number, parse_float=_Number, parse_constant=_Number
    ).decode
    kinds: dict[str, str] = {}
    values: dict[str, list[str | None]] = {name: [] for name in job.wanted}
    number = 0
    try:
        with _Unpacked(job) as unpacked, io.BufferedReader(unpacked, MEGABYTE) as lines:
            while line := lines.readline(LONGEST_ROW_BYTES + 1):
                number += 1
                if len(line) > LONGEST_ROW_BYTES:
                    raise Refusal(f"line {number} is longer than {LONGEST_ROW_BYTES // MEGABYTE} MB", _ONE_OBJECT)
                if line.isspace():
                    continue
                _add(job, _object(decode, line, number), number, kinds, values)
                if len(kinds) > job.caps.columns:
                    raise _too_many_columns(len(kinds), job.caps)
                if len(next(iter(values.values()))) == _JSON_BATCH_ROWS:
                    yield _text_frame(values, number)
                    values = {name: [] for name in job.wanted}
    except UnicodeDecodeError:
        raise _undecodable(job) from None
    except _BROKEN_GZIP as damage:
        raise _not_whole_gzip(damage) from None
    columns.extend((name, kind or "null") for name, kind in kinds.items())
    yield _text_frame(values, number)


_ONE_OBJECT = "Write one JSON object per line."


def _object(decode: Any, line: bytes, number: int) -> dict[str, Any]:
    try:
        found = decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise
    except RecursionError:
        raise Refusal(f"line {number} is nested too deeply", _ONE_OBJECT) from None
    except ValueError as damage:
        raise Refusal(f"line {number} is not JSON ({damage})", _ONE_OBJECT) from None
    if not isinstance(found, dict):
        raise Refusal(f"line {number} is not a JSON object", _ONE_OBJECT)
    return found


def _refuse_equal_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice} stands more than once")
    return found


def _add(
    job: Job, found: dict[str, Any], number: int, kinds: dict[str, str], values: dict[str, list[str | None]]
) -> None:
    for name, value in found.items():
        if not kinds.get(name):
            kinds[name] = _kind(value)
    for name, in_file in job.wanted.items():
        value = found.get(in_file)
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, dict | list):
            raise Refusal(f"line {number}: {in_file} holds {_kind(value)}", "Write it as text or a number.")
        values[name].append(value)


def _kind(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "boolean"
        case _Number():
            return "number"
        case str():
            return "text"
        case dict():
            return "an object"
    return "a list"


def _text_frame(values: dict[str, list[str | None]], number: int) -> pl.DataFrame:
    try:
        return pl.DataFrame(values, schema=dict.fromkeys(values, pl.String))
    except UnicodeEncodeError:
        raise Refusal(f"half a character (a lone surrogate) up to line {number}", "Write whole characters.") from None


# Parquet


def _parquet_fields(job: Job) -> list[tuple[str, Any]]:
    """The columns of a Parquet file with their Arrow types, once what its footer promises is within the caps."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with Path(job.path).open("rb") as file:
        if file.read(4) == b"PARE":
            raise Refusal("an encrypted Parquet file", "Land it unencrypted.")
        try:
            parquet = pq.ParquetFile(file)
            schema, facts = parquet.schema_arrow, parquet.metadata
        except MemoryError:
            raise
        except (pa.ArrowException, OSError) as damage:
            raise _not_whole_parquet(damage) from None
    if facts.num_columns > job.caps.columns:
        raise _too_many_columns(facts.num_columns, job.caps)
    expanded = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    _refuse_bomb(expanded, Path(job.path).stat().st_size, job.caps)
    if facts.num_rows > job.caps.rows:
        raise Refusal(
            f"{facts.num_rows:,} rows, more than {job.caps.rows:,}",
            "Split it, or raise intake.max_rows in retail.toml.",
        )
    wanted = set(job.wanted.values())
    without_text = [
        f"column {field.name} is of the type {field.type}, which has no text form"
        for field in schema
        if field.name in wanted and not _has_text_form(field.type)
    ]
    if without_text:
        raise Refusal("; ".join(without_text), "Write these columns as text, numbers, dates or times.")
    return [(field.name, field.type) for field in schema]


def _has_text_form(arrow_type: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(arrow_type):
        return _has_text_form(arrow_type.value_type)
    if types.is_decimal(arrow_type):
        return bool(arrow_type.precision <= 38)
    known = (types.is_string, types.is_large_string, types.is_boolean, types.is_integer, types.is_floating)
    others = (types.is_date, types.is_time, types.is_timestamp, types.is_null, types.is_string_view)
    return any(is_known(arrow_type) for is_known in (*known, *others))


def _parquet_rows(job: Job, header: list[str]) -> Iterator[pl.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [name for name in dict.fromkeys(job.wanted.values()) if name in header]
    expanded = 0
    try:
        with Path(job.path).open("rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for batch in parquet.iter_batches(_batch_rows(parquet.metadata), columns=columns):
                frame = cast(pl.DataFrame, pl.from_arrow(batch))
                text = pl.DataFrame([_as_text(frame[name], job.form) for name in columns]).select(_wanted(job, columns))
                expanded += int(text.estimated_size())
                if expanded > job.caps.expanded_bytes:
                    _refuse_bomb(expanded, expanded, job.caps)
                yield text
    except MemoryError:
        raise
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as damage:
        raise _not_whole_parquet(damage) from None


def _batch_rows(facts: Any) -> int:
    """Rows that are read at once: fewer where they are long."""
    expanded = sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups))
    bytes_per_row = max(expanded // max(facts.num_rows, 1), 1)
    return int(min(_PARQUET_BATCH_ROWS, max(_PARQUET_BATCH_BYTES // bytes_per_row, 1024)))


def _not_whole_parquet(damage: Exception) -> Refusal:
    return Refusal(f"not a whole Parquet file ({damage})", "Copy it again.")


def _as_text(values: pl.Series, form: FeedSettings) -> pl.Series:
    """Values as text in the form that the feed declares, so that cleaning reads them back as the same."""
    if values.dtype == pl.Date:
        # A file has few days and many rows: each day is written out once.
        days = values.unique().to_frame()
        texts = days.select(as_text(pl.col(values.name), values.dtype, form)).to_series()
        return values.replace_strict(days.to_series(), texts, return_dtype=pl.String)
    return values.to_frame().select(as_text(pl.col(values.name), values.dtype, form)).to_series()
