# ruff: noqa: RUF001 - digits of other scripts are meant to be mistaken for ours
"""Files that a supplier may land by mistake or on purpose, each with what must become of it.

A table of data, run by `unit/sources/test_sources_hostile_files.py` and published by the report of faults. Each file
goes the whole way: the landing zone, the copy, the child process, the lake, and where a row must be rejected, cleaning.
"""

import gzip
import io
import json
import os
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from retail_platform.cleaning import References, clean_feed
from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.ingestion import ingest_feed
from retail_platform.settings import FeedSettings, IntakeSettings, LakeSettings, Settings

MEGABYTE = 1024 * 1024
FEED = "pos_sales"
HEADER = b"business_date,store_id,item_id,quantity\n"
ROW = b"2017-03-01,S1,I1,2\n"
SALE = {"business_date": "2017-03-01", "store_id": "S1", "item_id": "I1", "quantity": 2}
INTAKE = IntakeSettings(
    quiet_seconds=0,
    max_expanded_bytes=100 * MEGABYTE,
    max_expansion_ratio=200,
    max_rows=1_000_000,
    max_columns=6_000,
    max_memory_bytes=1024 * MEGABYTE,
)

Build = Callable[[Path], Any]


@dataclass(frozen=True)
class Expected:
    """What must become of a file: an outcome, the rows that reach the raw table, and words of the reason.

    Outcomes are those of the ledger (ingested, empty) and of `raw.files_left_out` (refused, repeated, ignored,
    growing); rejected, where the rows are taken in and cleaning rejects each; unseen, where nothing is said.
    """

    outcome: str
    rows: int = 0
    words: str = ""

    def __str__(self) -> str:
        rows = f"{self.rows:,} row{'s' if self.rows != 1 else ''}" if self.rows else ""
        return ": ".join(part for part in (self.outcome, rows, self.words) if part)


@dataclass(frozen=True)
class HostileFile:
    """One kind of hostile file. `build` puts it, and what belongs to it, into a folder of its own below the feed's."""

    name: str
    what: str
    build: Build = field(repr=False)
    expected: Expected
    form: FeedSettings = field(default_factory=FeedSettings)
    intake: IntakeSettings = INTAKE


def run(cases: Sequence[HostileFile], home: Path, catalog: str = "sqlite") -> dict[str, str]:
    """Land the files in an empty home and take them in; by name what differs from the expected, empty where nothing.

    All files that need the same settings are one delivery, so that each must be dealt with among all the others.
    """
    Lakehouse(_settings(home, catalog, FeedSettings(), INTAKE)).prepare()
    places = {case.name: f"{number:03d}" for number, case in enumerate(cases)}
    wrong: dict[str, str] = {}
    deliveries: dict[Any, list[HostileFile]] = {}
    for case in cases:
        deliveries.setdefault((case.form.model_dump_json(), case.intake), []).append(case)
    for together in deliveries.values():
        lake = Lakehouse(_settings(home, catalog, together[0].form, together[0].intake))
        landing = lake.settings.landing / FEED
        with ExitStack() as going_on:
            for case in together:
                folder = landing / places[case.name]
                folder.mkdir(parents=True)
                end = case.build(folder)
                if callable(end):
                    going_on.callback(end)
            ingest_feed(lake, FEED, "hostile")
        happened = _Happened.of(lake)
        wrong |= {case.name: happened.differences(places[case.name], case.expected) for case in together}
        shutil.rmtree(landing)
    return wrong


def _settings(home: Path, catalog: str, form: FeedSettings, intake: IntakeSettings) -> Settings:
    lake = LakeSettings(memory_limit="1GB", lock_timeout_seconds=60)
    return Settings(home=home, catalog=catalog, feeds={FEED: form}, intake=intake, lake=lake)


@dataclass(frozen=True)
class _Happened:
    """What became of every file, by the folder in which it lay."""

    ledger: pl.DataFrame
    left_out: pl.DataFrame
    raw: pl.DataFrame
    rejected: pl.DataFrame

    @classmethod
    def of(cls, lake: Lakehouse) -> "_Happened":
        place = "split_part(file_name, '/', 1) AS place"
        raw = lake.read("raw.pos_sales", columns=TABLES["raw.pos_sales"].polars_schema.names())
        return cls(
            lake.query(f"SELECT {place}, file_id, rows, status FROM raw.ingested_files"),
            lake.query(f"SELECT {place}, outcome, reason FROM raw.files_left_out ORDER BY seen_at"),
            raw,
            _rejected_rows(raw),
        )

    def differences(self, place: str, expected: Expected) -> str:
        ledger, left_out = self.ledger.filter(place=place), self.left_out.filter(place=place)
        stored = self.raw.filter(pl.col("file_id").is_in(ledger["file_id"].implode()))
        outcome, words = "unseen", ""
        if ledger.height:
            outcome = ledger["status"][-1]
        if left_out.height:
            _, outcome, words = left_out.row(-1)
        if expected.outcome == "rejected" and outcome == "ingested":
            rejected = self.rejected.filter(pl.col("file_id").is_in(ledger["file_id"].implode()))
            words = "; ".join(rejected["reasons"].explode().to_list())
            outcome = "rejected" if rejected.height == stored.height else "ingested"
        wrong = []
        if outcome != expected.outcome:
            wrong.append(f"it was {outcome} ({words}) and not {expected.outcome}")
        if expected.words.casefold() not in words.casefold():
            wrong.append(f"the reason is {words!r} and does not say {expected.words!r}")
        if not stored.height == int(ledger["rows"].sum()) == expected.rows:
            wrong.append(f"{stored.height} rows are stored, and {expected.rows} were expected")
        return "; ".join(wrong)


def _rejected_rows(raw: pl.DataFrame) -> pl.DataFrame:
    now = datetime.now(UTC).replace(tzinfo=None)
    return clean_feed(FEED, raw, references=References(), now=now, today=now.date(), customer_key=b"key").rejected


# How files are made


def _text(content: bytes | str, name: str = "a.csv", encoding: str = "utf-8") -> Build:
    data = content.encode(encoding) if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def _sale(**changes: str) -> Build:
    """A CSV file of one sale with these values."""
    row = {**{name: str(value) for name, value in SALE.items()}, **changes}
    return _text(f"{','.join(row)}\n{','.join(row.values())}\n")


def _zipped(content: bytes, name: str = "a.csv.gz") -> Build:
    return _text(gzip.compress(content, mtime=0), name)


def _bomb(megabytes: int) -> Build:
    """Rows upon rows in a few kilobytes, in members so that making it takes no time."""
    member = gzip.compress(ROW * (MEGABYTE // len(ROW)), mtime=0)
    return _text(gzip.compress(HEADER, mtime=0) + member * megabytes, "a.csv.gz")


def _json(*lines: str | Mapping[str, Any], name: str = "a.jsonl", encoding: str = "utf-8") -> Build:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    return _text(text, name, encoding)


def _json_sale(**changes: str) -> Build:
    """A JSON Lines file of one sale; `changes` are pieces of JSON."""
    parts = {**{name: json.dumps(value) for name, value in SALE.items()}, **changes}
    return _json("{" + ", ".join(f'"{name}": {value}' for name, value in parts.items()) + "}")


def _table(rows: int = 1, **columns: Any) -> pa.Table:
    """Sales with these columns in the place of, or beside, their own."""
    plain = {name: pa.array([value] * rows) for name, value in SALE.items()}
    return pa.table({**plain, **columns})


def _parquet(table: pa.Table | Callable[[], pa.Table], **options: Any) -> Build:
    def build(folder: Path) -> None:
        pq.write_table(table() if callable(table) else table, folder / "a.parquet", **options)

    return build


def _parquet_bytes(change: Callable[[bytes], bytes], **options: Any) -> Build:
    def build(folder: Path) -> None:
        buffer = io.BytesIO()
        numbers = pa.array([f"I{number}" for number in range(2_000)])
        pq.write_table(_table(2_000, item_id=numbers), buffer, **options)
        (folder / "a.parquet").write_bytes(change(buffer.getvalue()))

    return build


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _named(name: str, bystanders: Sequence[str] = ()) -> Build:
    """A good file under a hostile name. Bystanders lie beside it under names that are passed over."""

    def build(folder: Path) -> None:
        for other in bystanders:
            (folder / other).write_bytes(HEADER + ROW * 7)
        # Content of its own, since the same content under another name would be recognised.
        (folder / name).write_bytes(HEADER + f"2017-03-01,{zlib.crc32(os.fsencode(name))},I1,2\n".encode())

    return build


def _link(name: str, target: str) -> Build:
    return lambda folder: (folder / name).symlink_to(target)


def _raw_name(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.csv")).write_bytes(HEADER)


def _socket(folder: Path) -> None:
    # The name of a socket may be a hundred letters long, so it is made where the path is short and moved.
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)
        try:
            server.bind("a.csv")
        finally:
            os.chdir(here)


def _sparse(folder: Path) -> None:
    with (folder / "a.csv").open("wb") as file:
        file.write(HEADER)
        file.truncate(64 * MEGABYTE)


def _growing(folder: Path) -> Callable[[], None]:
    """A file that somebody goes on writing to while it is looked at; returns what ends that."""
    file, stop = folder / "a.csv", threading.Event()
    file.write_bytes(HEADER)

    def grow() -> None:
        with file.open("ab", buffering=0) as target:
            while not stop.wait(0.005):
                target.write(ROW)

    threading.Thread(target=grow, daemon=True).start()
    return stop.set


def _from_the_future(folder: Path) -> None:
    file = folder / "a.csv"
    file.write_bytes(HEADER + ROW.replace(b"S1", b"S-future"))
    in_a_year = time.time() + 365 * 86_400
    os.utime(file, (in_a_year, in_a_year))


def _twice(folder: Path) -> None:
    (folder / "a.csv").write_bytes(HEADER + ROW.replace(b"S1", b"S-twice"))
    (folder / "b.csv").write_bytes(HEADER + ROW.replace(b"S1", b"S-twice"))


def _constant_pages(rows: int) -> pa.Table:
    return pa.table(
        {**{name: pa.nulls(rows, pa.string()) for name in SALE if name != "store_id"}, "store_id": pa.repeat("S", rows)}
    )


def _wide(columns: int) -> bytes:
    names = [*SALE, *(f"c{number}" for number in range(columns - len(SALE)))]
    values = [*map(str, SALE.values()), *("" for _ in range(columns - len(SALE)))]
    return f"{','.join(names)}\n{','.join(values)}\n".encode()


def _ingested(rows: int = 1) -> Expected:
    return Expected("ingested", rows)


def _refused(words: str) -> Expected:
    return Expected("refused", words=words)


def _rejected(words: str) -> Expected:
    return Expected("rejected", 1, words)


_EMPTY = Expected("empty")
_NOT_A_NUMBER = "is not a number"
_NOT_A_DATE = "is not a date"

_CSV = [
    HostileFile("empty", "no byte at all", _text(b""), _EMPTY),
    HostileFile("header only", "a header and no row", _text(HEADER), _EMPTY),
    HostileFile("header without line end", "a header that stops", _text(HEADER.rstrip() + b",till"), _EMPTY),
    HostileFile("blank lines", "nothing but line ends", _text(b"\n\r\n\n"), _EMPTY),
    HostileFile("byte order mark alone", "three bytes", _text(b"\xef\xbb\xbf"), _EMPTY),
    HostileFile("byte order mark", "before the header", _text(b"\xef\xbb\xbf" + HEADER + ROW), _ingested()),
    HostileFile(
        "two files in one",
        "a second header in the middle, with its byte order mark",
        _text(HEADER + b"\xef\xbb\xbf" + HEADER),
        _rejected(_NOT_A_DATE),
    ),
    HostileFile(
        "UTF-16", "not declared", _text((HEADER + ROW).decode(), encoding="utf-16"), _refused("byte order mark of UTF-16")
    ),
    HostileFile(
        "UTF-16 declared",
        "by setting",
        _text((HEADER + ROW).decode() + "2017-03-01,Zürich,I1,2\n", encoding="utf-16"),
        _ingested(2),
        FeedSettings(encoding="utf-16"),
    ),
    HostileFile(
        "UTF-16 without mark", "not declared", _text((HEADER + ROW).decode(), encoding="utf-16-le"), _refused("NUL")
    ),
    HostileFile(
        "half a UTF-16 character",
        "declared, cut off in the middle of a character",
        _text((HEADER + ROW).decode().encode("utf-16") + b"\n"),
        _refused("not UTF-16 text"),
        FeedSettings(encoding="utf-16"),
    ),
    HostileFile(
        "Latin-1",
        "not declared",
        _text("business_date,store_id,item_id,quantity\n2017-03-01,S1,I1,2\n2017-03-01,Zürich,I1,2\n", encoding="latin-1"),
        _refused("not UTF-8 text from line 3"),
    ),
    HostileFile(
        "Latin-1 declared",
        "by setting",
        _text(HEADER.decode() + "2017-03-01,Genève,I1,2\n", encoding="latin-1"),
        _ingested(),
        FeedSettings(encoding="latin-1"),
    ),
    HostileFile(
        "a byte that the encoding lacks",
        "declared as cp1252",
        _text(HEADER + b"2017-03-01,\x81,I1,2\n"),
        _refused("not CP1252 text from line 2"),
        FeedSettings(encoding="cp1252"),
    ),
    HostileFile("NUL in a value", "a text with a NUL", _text(HEADER + b"2017-03-01,S\x001,I1,2\n"), _refused("NUL")),
    HostileFile("sparse file", "a hole of 64 MB", _sparse, _refused("NUL")),
    HostileFile("short row", "three fields of four", _text(HEADER + b"2017-03-01,S1,I1\n"), _refused("row 1 has 3 fields")),
    HostileFile("long row", "five fields", _text(HEADER + ROW + b"2017-03-01,S1,I1,2,5\n"), _refused("row 2 has 5 fields")),
    HostileFile("unclosed quote", "in the last column", _text(HEADER + b'2017-03-01,S1,I1,"2\n' + ROW), _refused("closed")),
    HostileFile(
        "unclosed quote before the end", "it swallows rows", _text(HEADER + b'2017-03-01,"S1,I1,2\n' + ROW), _refused("fields")
    ),
    HostileFile("quote in the middle", "of an unquoted field", _text(HEADER + b'2017-03-01,12" pan,I1,2\n'), _ingested()),
    HostileFile(
        "field of 10 MB",
        "a quoted novel",
        _text(HEADER + b'2017-03-01,"' + b"x" * 10 * MEGABYTE + b'",I1,2\n'),
        _refused("longer than 4 MB"),
    ),
    HostileFile("header of 9 MB", "one name", _text(b"x" * 9 * MEGABYTE), _refused("longer than 4 MB")),
    HostileFile("5,000 columns", "four of them known", _text(_wide(5_000)), _ingested()),
    HostileFile("7,000 columns", "beyond the limit", _text(_wide(7_000)), _refused("7,000 columns")),
    HostileFile("wrong delimiter", "semicolons", _text((HEADER + ROW).replace(b",", b";")), _refused("separated by ';'")),
    HostileFile("CR only", "line ends of old", _text((HEADER + ROW).replace(b"\n", b"\r")), _ingested()),
    HostileFile("mixed line ends", "CRLF, LF and CR", _text(HEADER.replace(b"\n", b"\r\n") + ROW + ROW.replace(b"\n", b"\r") + b"2017-03-02,S,I,2\n"), _ingested(3)),
    HostileFile("no last line end", "the file just stops", _text(HEADER + ROW.strip() + b"0"), _ingested()),
    HostileFile("formula", "text that a spreadsheet would run", _sale(store_id="=cmd|' /C calc'!A0"), _ingested()),
    HostileFile("SQL in a value", "a quote and a statement", _sale(store_id="'; DROP TABLE raw.pos_sales; --"), _ingested()),
    HostileFile("SQL in a column name", "beside the known ones", _sale(**{"x'); DROP TABLE raw.pos_sales; --": "1"}), _ingested()),
    HostileFile("markup", "a script in a value", _sale(item_id="<script>alert(1)</script>"), _ingested()),
    HostileFile("terminal codes", "escape sequences in a value", _sale(item_id="\x1b[2J\x1b]0;x\x07"), _ingested()),
    HostileFile("text that runs backwards", "bidirectional marks", _sale(item_id="\u202etxt.exe\u200b"), _ingested()),
    HostileFile("header repeated", "as a row", _text(HEADER * 2), _rejected(_NOT_A_DATE)),
    HostileFile("total at the end", "with all its fields", _text(HEADER + b"TOTAL,,,123\n"), _rejected(_NOT_A_DATE)),
    HostileFile("total of two fields", "at the end", _text(HEADER + ROW + b"TOTAL,123\n"), _refused("row 2 has 2 fields")),
    HostileFile("line of blanks", "between rows", _text(HEADER + ROW + b"   \n" + ROW), _refused("row 2 has 1 fields")),
    HostileFile("row of blanks", "four blank fields", _text(HEADER + b" , ,\t, \n"), _rejected("store_id is missing")),
    HostileFile("column missing", "without quantity", _text(b"business_date,store_id,item_id\n2017-03-01,S,I\n"), _refused("missing: quantity")),
    HostileFile("column renamed", "qty for quantity", _text(b"business_date,store_id,item_id,quantiy\n2017-03-01,S,I,1\n"), _refused('quantity = "quantiy"')),
    HostileFile("column twice", "store_id", _text(b"business_date,store_id,store_id,item_id,quantity\n"), _refused("more than once")),
    HostileFile("blanks around names", "in the header", _text(b"business_date, store_id ,item_id,quantity\n2017-03-01,S,I,1\n"), _refused('store_id = " store_id "')),
    HostileFile("page of an error", "HTML instead of data", _text(b"<html><body>502 Bad Gateway</body></html>\n"), _refused("missing")),
    HostileFile("JSON named CSV", "the wrong ending", _text(json.dumps([SALE])), _refused("missing")),
    HostileFile("Parquet named CSV", "the wrong ending", _text(b"PAR1" + bytes(40)), _refused("a Parquet file")),
    HostileFile("workbook named CSV", "the wrong ending", _text(b"PK\x03\x04" + bytes(40)), _refused("an Excel workbook")),
    HostileFile("gzip named CSV", "the wrong ending", _text(gzip.compress(HEADER + ROW)), _refused("compressed with gzip")),
]  # fmt: skip

_GZIP = [
    HostileFile("empty gzip", "of nothing", _zipped(b""), _EMPTY),
    HostileFile("gzip of two members", "one after the other", _text(gzip.compress(HEADER) + gzip.compress(ROW), "a.csv.gz"), _ingested()),
    HostileFile("truncated gzip", "the end is missing", _text(gzip.compress(HEADER + os.urandom(500).hex().encode())[:-100], "a.csv.gz"), _refused("not a whole gzip file")),
    HostileFile("gzip with a wrong checksum", "eight bytes changed", _text(gzip.compress(HEADER + ROW)[:-8] + bytes(8), "a.csv.gz"), _refused("not a whole gzip file")),
    HostileFile("gzip with a rest", "something after it", _text(gzip.compress(HEADER + ROW) + b"rest", "a.csv.gz"), _refused("not a whole gzip file")),
    HostileFile("gzip of gzip", "packed twice", _zipped(gzip.compress(HEADER + ROW)), _refused("compressed with gzip")),
    HostileFile("CSV named gzip", "the wrong ending", _text(HEADER + ROW, "a.csv.gz"), _refused("not a whole gzip file")),
    HostileFile("gzip bomb", "300 times as large inside", _bomb(70), _refused("200 times as large")),
    HostileFile("gzip bomb of JSON", "one endless line", _zipped(b"[" * 70 * MEGABYTE, "a.jsonl.gz"), _refused("longer than 4 MB")),
]  # fmt: skip

_VALUES = [
    *(
        HostileFile(f"number {value}", "as a quantity", _sale(quantity=value), _rejected(_NOT_A_NUMBER))
        for value in ("1e400", "NaN", "inf", "-Infinity", "0x10", "٣", "３", '"1,5"', "1 000", "1_000", "--5", "2.5.1", "½")
    ),
    HostileFile("whole number beyond 64 bits", "as a line number", _sale(line_number="9" * 30), _rejected("is not a whole number")),
    *(
        HostileFile(f"date {value}", "as the business date", _sale(business_date=value), _rejected(_NOT_A_DATE))
        for value in ("2017-02-30", "0000-00-00", "99999-01-01", "2017-03-01T10:00:00+01:00", "03/04/2017", "2017-3-1", "20170301", "２０１７-03-01", "42795")
    ),
    HostileFile("day that is yet to come", "9999-12-31", _sale(business_date="9999-12-31"), _rejected("lies after today")),
    HostileFile("day before the first", "0001-01-01", _sale(business_date="0001-01-01"), _rejected("before the first accepted date")),
    *(
        HostileFile(f"time {value}", "as the time of sale", _sale(sold_at=value), _rejected("is not a date and time"))
        for value in ("2017-03-01T24:00:00", "2017-03-01T10:00:60", "2017-03-01T10:00:00Z", "10:00")
    ),
]  # fmt: skip

_JSON_LINES = [
    HostileFile("JSON Lines", "as documented", _json(SALE, "", SALE), _ingested(2)),
    HostileFile("JSON Lines with a byte order mark", "first", _json("\ufeff" + json.dumps(SALE), {"till": 1}), _ingested(2)),
    HostileFile("JSON Lines in UTF-16", "declared", _json(SALE, name="a.ndjson", encoding="utf-16"), _ingested(), FeedSettings(encoding="utf-16")),
    HostileFile("JSON that is no object", "a list", _json([1, 2, 3].__repr__()), _refused("line 1 is not a JSON object")),
    HostileFile("JSON over several lines", "a whole document", _text(json.dumps([SALE], indent=1), "a.jsonl"), _refused("line 1 is not JSON")),
    HostileFile("broken line", "the second of three", _json(SALE, '{"store_id": ', SALE), _refused("line 2 is not JSON")),
    HostileFile("object in a column", "as an item", _json_sale(item_id='{"id": 1}'), _refused("line 1: item_id holds an object")),
    HostileFile("list in a column", "as an item", _json_sale(item_id="[1]"), _refused("line 1: item_id holds a list")),
    HostileFile("list in an unknown column", "beside the known ones", _json_sale(tags='["a", {"b": [1]}]'), _ingested()),
    HostileFile("equal keys", "quantity twice", _json('{"quantity": 1, "quantity": 2}'), _refused("the key quantity stands more than once")),
    HostileFile("JSON NaN", "as a quantity", _json_sale(quantity="NaN"), _rejected(_NOT_A_NUMBER)),
    HostileFile("JSON number too large", "1e400", _json_sale(quantity="1e400"), _rejected(_NOT_A_NUMBER)),
    HostileFile("JSON number of 10,000 digits", "as a quantity", _json_sale(quantity="9" * 10_000), _rejected(_NOT_A_NUMBER)),
    HostileFile("JSON true", "as a quantity", _json_sale(quantity="true"), _rejected(_NOT_A_NUMBER)),
    HostileFile("JSON null", "as a store", _json_sale(store_id="null"), _rejected("store_id is missing")),
    HostileFile("key that is never there", "quantity", _json({"business_date": "2017-03-01", "store_id": "S", "item_id": "I"}), _refused("missing: quantity")),
    HostileFile("nested 100,000 deep", "an avalanche of brackets", _json_sale(tags="[" * 100_000 + "]" * 100_000), _refused("line 1 is nested too deeply")),
    HostileFile("half a character", "a lone surrogate", _json_sale(item_id='"\\ud800"'), _refused("lone surrogate")),
    HostileFile("escaped NUL", "in a text", _json_sale(item_id='"a\\u0000b"'), _refused("NUL")),
    HostileFile("line of 9 MB", "one text", _json_sale(item_id='"' + "x" * 9 * MEGABYTE + '"'), _refused("longer than 4 MB")),
    HostileFile("JSON Lines that are not UTF-8", "one byte", _text(json.dumps(SALE).encode() + b'\n{"store_id": "\xff"}\n', "a.jsonl"), _refused("not UTF-8 text from line 2")),
]  # fmt: skip

_DAY = date(2017, 3, 1)
_PARQUET = [
    HostileFile("Parquet of no bytes", "an empty file", _text(b"", "a.parquet"), Expected("repeated", words="empty")),
    HostileFile("Parquet without rows", "a schema alone", _parquet(_table(0)), _EMPTY),
    HostileFile("Parquet without columns", "three empty rows", _parquet(pa.table({"x": [1, 2, 3]}).select([])), _EMPTY),
    HostileFile("lists", "as an item", _parquet(_table(item_id=pa.array([["a"]]))), _refused("item_id is of the type list")),
    HostileFile("lists in an unknown column", "beside the known ones", _parquet(_table(tags=pa.array([["a"]]))), _ingested()),
    HostileFile("bytes", "as a store", _parquet(_table(store_id=pa.array([b"S1"]))), _refused("store_id is of the type binary")),
    HostileFile("duration", "as a quantity", _parquet(_table(quantity=pa.array([timedelta(1)]))), _refused("no text form")),
    HostileFile("decimals", "as a quantity", _parquet(_table(quantity=pa.array([Decimal("2.50")]))), _ingested()),
    HostileFile("decimals of 60 digits", "as a quantity", _parquet(_table(quantity=pa.array([Decimal(2)], pa.decimal256(60)))), _refused("decimal256")),
    HostileFile("dictionary", "as a store", _parquet(_table(store_id=pa.array(["S1"]).dictionary_encode())), _ingested()),
    HostileFile("dates as dates", "and the same day as time", _parquet(_table(business_date=pa.array([_DAY]))), _ingested()),
    HostileFile("time with a zone", "as the business date", _parquet(_table(business_date=pa.array([datetime(2017, 3, 1, tzinfo=UTC)]))), _rejected(_NOT_A_DATE)),
    HostileFile("INT96 times", "as old tools write them", _parquet(_table(sold_at=pa.array([datetime(2017, 3, 1)])), use_deprecated_int96_timestamps=True), _ingested()),
    HostileFile("floats that are no numbers", "NaN as a quantity", _parquet(_table(quantity=pa.array([float("nan")]))), _rejected(_NOT_A_NUMBER)),
    HostileFile("infinite float", "as a quantity", _parquet(_table(quantity=pa.array([float("-inf")]))), _rejected(_NOT_A_NUMBER)),
    HostileFile("NUL in Parquet", "in a text", _parquet(_table(store_id=pa.array(["a\0b"]))), _refused("NUL characters in the column store_id")),
    HostileFile("5,000 columns of Parquet", "four of them known", _parquet(lambda: _table(**{f"c{n}": pa.array([n]) for n in range(4_996)})), _ingested()),
    HostileFile("equal names", "store_id twice", _parquet(pa.table([pa.array(["x"])] * 5, names=[*SALE, "store_id"])), _refused("more than once")),
    HostileFile("truncated Parquet", "the end is missing", _parquet_bytes(lambda content: content[:-100]), _refused("not a whole Parquet file")),
    HostileFile("damaged footer", "one bit", _parquet_bytes(lambda content: _flipped(content, -60)), _refused("")),
    HostileFile("damaged page", "one bit", _parquet_bytes(lambda content: _flipped(content, len(content) // 3), write_page_checksum=True, compression="none", use_dictionary=False), _refused("not a whole Parquet file")),
    HostileFile("encrypted Parquet", "its footer", _parquet_bytes(lambda content: b"PARE" + content[4:-4] + b"PARE"), _refused("an encrypted Parquet file")),
    HostileFile("CSV named Parquet", "the wrong ending", _text(HEADER + ROW, "a.parquet"), _refused("not a whole Parquet file")),
    HostileFile("text bomb", "one long text a hundred thousand times", _parquet(lambda: _table(100_000, store_id=pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), ["x" * MEGABYTE]))), _refused("memory")),
    HostileFile("page bomb", "pages 1,000 times as large inside", _parquet(lambda: _table(store_id=pa.array(["x" * 80 * MEGABYTE])), compression="zstd", use_dictionary=False, write_statistics=False), _refused("200 times as large")),
    HostileFile("too many rows", "in a few bytes", _parquet(lambda: _constant_pages(1_500_000)), _refused("1,500,000 rows")),
]  # fmt: skip

_NAMES = [
    *(
        HostileFile(f"name {name!a}", "a good file", _named(name, bystanders), _ingested())
        for name, bystanders in (
            ("it's.csv", ()),
            ('say "x".csv', ()),
            ("*.csv", (".xyz.csv",)),
            ("[ab].csv", (".a.csv",)),
            ("{a,b}?.csv", (".ax.csv",)),
            ("two\nlines.csv", ()),
            ("$(touch x);`x`.csv", ()),
            ("-rf.csv", ()),
            ("back\\slash%41%s.csv", ()),
            ("a..csv", ()),
            ("e\u0301 \U0001f600.csv", ()),
            ("region=CA;DROP.CSV", ()),
            ("n" * 251 + ".csv", ()),
        )
    ),
    HostileFile("hidden name", "a dot first", _named(".sales.csv"), Expected("unseen")),
    HostileFile("name that is not UTF-8", "one byte", _raw_name, Expected("ignored", words="its name is not UTF-8")),
    HostileFile("unknown ending", "a workbook", _named("a.xlsx"), Expected("ignored", words="does not end in")),
    HostileFile("unfinished download", "a name with .part", _named("a.csv.part"), Expected("ignored", words="does not end in")),
    HostileFile("link to a secret", "/etc/passwd", _link("passwd.csv", "/etc/passwd"), Expected("ignored", words="a symbolic link")),
    HostileFile("link to a folder", "the root", _link("root.csv", "/"), Expected("ignored", words="a symbolic link")),
    HostileFile("link to nowhere", "a missing file", _link("nowhere.csv", "missing"), Expected("ignored", words="a symbolic link")),
    HostileFile("link to itself", "a loop", _link("loop.csv", "loop.csv"), Expected("ignored", words="a symbolic link")),
    HostileFile("pipe", "reading it would wait for ever", lambda folder: os.mkfifo(folder / "a.csv"), Expected("ignored", words="not a regular file")),
    HostileFile("socket", "with the name of a file", _socket, Expected("ignored", words="not a regular file")),
    HostileFile("folder", "with the name of a file", lambda folder: (folder / "a.csv").mkdir(), Expected("ignored", words="a folder")),
    HostileFile("growing file", "still being written", _growing, Expected("growing", words="still being written"), intake=INTAKE.model_copy(update={"quiet_seconds": 0.05})),
    HostileFile("file from the future", "a clock that is ahead", _from_the_future, _ingested(), intake=INTAKE.model_copy(update={"quiet_seconds": 0.05})),
    HostileFile("renamed copy", "the same content under two names", _twice, Expected("repeated", 1, "the same content was taken in as")),
    HostileFile("larger than allowed", "by a byte", _text(HEADER + ROW), _refused("bytes, more than"), intake=INTAKE.model_copy(update={"max_file_bytes": 58})),
]  # fmt: skip

HOSTILE_FILES = (*_CSV, *_GZIP, *_VALUES, *_JSON_LINES, *_PARQUET, *_NAMES)
"""The table: every kind of hostile file that the platform is tested with, in the order in which they are published."""
