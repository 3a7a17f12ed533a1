"""Landing files, read: what their rows become, and how a broken one is refused."""

import gzip
import hashlib
import os
import shutil
import signal
import threading
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retail_platform.contracts import FEEDS
from retail_platform.contracts.feeds import RAW_TABLES
from retail_platform.settings import FeedSettings, IntakeSettings
from retail_platform.sources.files import BrokenFile, IntakeError, LandingFile, SpooledFile, copy_to_spool, discover
from retail_platform.sources.reading import FileReader, ReadFile
from retail_platform_tests.landing import ARRIVED, FIRST_DATE, ReadLandingFile

TODAY = ARRIVED.date()
AS_DOCUMENTED = FeedSettings()
HEADER = b"business_date,store_id,item_id,quantity\n"
ROW = b"2017-03-01,S1,I1,2\n"
MAX_BYTES = IntakeSettings().max_file_bytes


def _land(folder: Path, content: bytes, name: str = "a.csv", feed: str = "pos_sales") -> LandingFile:
    path = folder / feed / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (file,) = discover(folder, feed)[0]
    return file


@pytest.fixture
def read(read_landing_file: ReadLandingFile) -> ReadLandingFile:
    return read_landing_file


def _refusal(read: ReadLandingFile, file: LandingFile, settings: FeedSettings | None = None) -> str:
    with pytest.raises(BrokenFile) as refused:
        read(file, settings)
    return str(refused.value)


# What is read


@pytest.mark.parametrize("feed", FEEDS)
def test_the_frame_has_exactly_the_columns_of_the_raw_table(read: ReadLandingFile, tmp_path: Path, feed: str) -> None:
    names = FEEDS[feed].required_columns
    content = ",".join(names) + "\n" + ",".join("x" for _ in names) + "\n"
    rows = read(_land(tmp_path, content.encode(), feed=feed))
    assert RAW_TABLES[feed].validate(rows).height == 1


def test_csv_fields_are_taken_as_they_stand_and_an_empty_one_as_null(read: ReadLandingFile, tmp_path: Path) -> None:
    content = (
        HEADER.replace(b"\n", b",transaction_id,customer_id\n")
        + b'2017-03-01, S1 ,"a ""b"", c",007.50,"two\nlines",\n'
        + b'2017-03-01,NULL,NA,1e3,"",\xc3\xa9\n'
    )
    rows = read(_land(tmp_path, content))
    columns = ["store_id", "item_id", "quantity", "transaction_id", "customer_id", "sold_at"]
    assert rows.select(columns).rows() == [
        (" S1 ", 'a "b", c', "007.50", "two\nlines", None, None),
        ("NULL", "NA", "1e3", None, "é", None),
    ]
    assert rows["row_number"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"\xef\xbb\xbf" + HEADER + ROW, 1),
        ((HEADER + ROW + ROW).replace(b"\n", b"\r\n"), 2),
        ((HEADER + ROW).rstrip(), 1),
        (b"\n" + HEADER + b"\n" + ROW + b"\n\n", 1),
        (HEADER, 0),
        (HEADER.rstrip(), 0),
        (b"", 0),
        (b"\n\n", 0),
        (b"\xef\xbb\xbf", 0),
    ],
    ids=[
        "byte order mark",
        "CRLF",
        "no last line end",
        "empty lines",
        "header",
        "bare header",
        "empty",
        "blank",
        "BOM",
    ],
)
def test_harmless_variants_of_csv_are_read(read: ReadLandingFile, tmp_path: Path, content: bytes, rows: int) -> None:
    assert read(_land(tmp_path, content)).height == rows


def test_gzip_is_read_like_the_file_in_it_also_in_several_members(read: ReadLandingFile, tmp_path: Path) -> None:
    file = _land(tmp_path, gzip.compress(HEADER + ROW) + gzip.compress(ROW), "a.csv.gz")
    assert read(file)["row_number"].to_list() == [1, 2]


def test_a_row_belongs_to_its_own_day_or_else_to_the_day_of_arrival(read: ReadLandingFile, tmp_path: Path) -> None:
    days = {
        "2017-03-01": date(2017, 3, 1),
        " 2017-03-01 ": date(2017, 3, 1),
        "2017-03-01T18:22:05": date(2017, 3, 1),
        "2010-01-01": FIRST_DATE,
        "2009-12-31": TODAY,
        "2017-06-01": TODAY,
        "2017-06-02": TODAY,
        "01/03/2017": TODAY,
        "": TODAY,
    }
    content = HEADER + b"".join(f"{day},S1,I1,2\n".encode() for day in days)
    assert read(_land(tmp_path, content))["partition_date"].to_list() == list(days.values())


def test_rows_of_a_feed_without_a_date_belong_to_the_day_of_arrival(read: ReadLandingFile, tmp_path: Path) -> None:
    rows = read(_land(tmp_path, b"store_id\nS1\n", feed="stores"))
    assert rows.select("file_id", "partition_date", "ingested_at").rows() == [
        (hashlib.sha256(b"store_id\nS1\n").hexdigest(), TODAY, ARRIVED)
    ]


def test_columns_and_delimiter_follow_the_settings(read: ReadLandingFile, tmp_path: Path) -> None:
    file = _land(tmp_path, b"day;store_id;sku;quantity;till\n2017-03-01;S1;I1;2,5;4\n")
    settings = FeedSettings(columns={"business_date": "day", "item_id": "sku"}, delimiter=";")
    rows = read(file, settings)
    assert rows.select("business_date", "item_id", "quantity").rows() == [("2017-03-01", "I1", "2,5")]


def test_parquet_values_become_their_canonical_text(read: ReadLandingFile, tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "business_date": [date(2017, 3, 1), None],
            "store_id": [7, -8],
            "item_id": pl.Series(["a", ""], dtype=pl.Categorical),
            "quantity": [0.1, 1e16],
            "sales_amount": pl.Series([0.1, 3], dtype=pl.Float32),
            "discount_amount": [Decimal("5.90"), None],
            "transaction_id": [True, False],
            "sold_at": [datetime(2017, 3, 1, 18, 22, 5), datetime(2017, 3, 1, 0, 0, 0, 250)],
            "customer_id": pl.Series([None, None], dtype=pl.Null),
        }
    )
    (tmp_path / "pos_sales").mkdir()
    frame.write_parquet(tmp_path / "pos_sales" / "a.parquet")
    (file,) = discover(tmp_path, "pos_sales")[0]
    assert read(file).select(frame.columns).rows() == [
        ("2017-03-01", "7", "a", "0.1", "0.1", "5.90", "true", "2017-03-01T18:22:05", None),
        (None, "-8", "", "1e+16", "3.0", None, "false", "2017-03-01T00:00:00.000250", None),
    ]


def test_a_time_zone_stays_visible_so_that_cleaning_can_refuse_it(read: ReadLandingFile, tmp_path: Path) -> None:
    aware = pl.Series([datetime(2017, 3, 1, 18)]).dt.replace_time_zone("Europe/Berlin")
    (tmp_path / "pos_sales").mkdir()
    sale = {"business_date": ["2017-03-01"], "store_id": ["S"], "item_id": ["I"], "quantity": [1], "sold_at": aware}
    pl.DataFrame(sale).write_parquet(tmp_path / "pos_sales" / "a.parquet")
    (file,) = discover(tmp_path, "pos_sales")[0]
    assert read(file)["sold_at"].to_list() == ["2017-03-01T18:00:00+01:00"]


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_rows_are_numbered_through_in_file_order(read: ReadLandingFile, tmp_path: Path, ending: str) -> None:
    count = 120_000
    frame = pl.DataFrame({"item_id": [f"I{n}" for n in range(1, count + 1)], "item_name": ["x" * 60] * count})
    path = tmp_path / "items" / f"a.{ending}"
    path.parent.mkdir()
    match ending:
        case "csv":
            frame.write_csv(path)
        case "csv.gz":
            path.write_bytes(gzip.compress(frame.write_csv().encode(), compresslevel=1))
        case "parquet":
            frame.write_parquet(path, row_group_size=40_000)
    (file,) = discover(tmp_path, "items")[0]
    rows = read(file)
    named_by_number = pl.format("I{}", "row_number") == pl.col("item_id")
    assert rows.select(pl.len(), named_by_number.all()).row(0) == (count, True)


@pytest.mark.parametrize(
    "name",
    ["x*.csv", "[ab].csv", "it's.csv", 'say "x".csv', "two\nlines.csv", "100%41.csv", "-rf.csv", "a;b #?.csv", "é.csv"],
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_strange_file_name_reads_that_file_only(
    read: ReadLandingFile, tmp_path: Path, name: str, ending: str
) -> None:
    for bystander in ("xyz.csv", "a.csv", "100A.csv"):
        path = tmp_path / "pos_sales" / bystander
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(HEADER + ROW + ROW)
    strange = tmp_path / "pos_sales" / (name + ending)
    strange.write_bytes(gzip.compress(HEADER + ROW) if ending else HEADER + ROW)
    (file,) = [file for file in discover(tmp_path, "pos_sales")[0] if file.path == strange]
    assert read(file).height == 1


def test_a_strange_parquet_name_reads_that_file_only(read: ReadLandingFile, tmp_path: Path) -> None:
    folder = tmp_path / "stores" / "region=CA"
    folder.mkdir(parents=True)
    pl.DataFrame({"store_id": ["S1"]}).write_parquet(folder / "x.parquet")
    (folder / "x.parquet").rename(folder / "x*.parquet")
    pl.DataFrame({"store_id": ["S2"]}).write_parquet(folder / "xyz.parquet")
    strange = discover(tmp_path, "stores")[0][0]
    assert read(strange).select("store_id", "region").rows() == [("S1", None)]


# What is refused


def test_missing_columns_are_named_all_at_once_with_those_found_and_the_remedy(
    read: ReadLandingFile, tmp_path: Path
) -> None:
    file = _land(tmp_path, b"business_date,store,item_id,units\n")
    message = _refusal(read, file, FeedSettings(columns={"quantity": "pieces"}))
    assert message == (
        "landing file pos_sales/a.csv: required columns are missing: store_id, quantity (named pieces in retail.toml); "
        "the file has: business_date, store, item_id, units. Add them to the file, or where they have other names there, "
        'say so in retail.toml under [feeds.pos_sales.columns], such as store_id = "store".'
    )


def test_a_wrong_delimiter_is_recognised(read: ReadLandingFile, tmp_path: Path) -> None:
    file = _land(tmp_path, HEADER.replace(b",", b";"))
    assert _refusal(read, file).endswith("separated by ';': set feeds.pos_sales.delimiter in retail.toml.")


def test_every_problem_of_a_header_is_told(read: ReadLandingFile, tmp_path: Path) -> None:
    message = _refusal(read, _land(tmp_path, b"business_date,store_id,store_id,quantity\n"))
    assert "required columns are missing: item_id" in message
    assert "more than once in the header: store_id" in message


def test_columns_without_a_name_are_no_fault(read: ReadLandingFile, tmp_path: Path) -> None:
    file = _land(tmp_path, HEADER.replace(b"\n", b",,\n") + ROW.replace(b"\n", b",,\n"))
    assert read(file)["quantity"].to_list() == ["2"]


@pytest.mark.parametrize(
    ("broken_row", "fields"), [(b"2017-03-01,S1,I1\n", 3), (b"2017-03-01,S1,I1,2,5\n", 5), (b"  \n", 1)]
)
def test_a_ragged_row_is_named_by_its_number_wherever_it_stands(
    read: ReadLandingFile, tmp_path: Path, broken_row: bytes, fields: int
) -> None:
    file = _land(tmp_path, HEADER + ROW * 600_000 + b"\n" + broken_row + ROW)
    assert f"row 600001 has {fields} fields where the header has 4" in _refusal(read, file)


@pytest.mark.parametrize("content", [HEADER + b"2017-03-01,\xff,I1,2\n", "business_date,store_id".encode("utf-16")])
def test_text_that_is_not_utf8_is_refused(read: ReadLandingFile, tmp_path: Path, content: bytes) -> None:
    message = _refusal(read, _land(tmp_path, content))
    assert "not UTF-8" in message
    assert "Save it in UTF-8" in message


def test_text_that_is_not_utf8_is_refused_far_down_in_the_file(read: ReadLandingFile, tmp_path: Path) -> None:
    assert "not UTF-8" in _refusal(read, _land(tmp_path, HEADER + ROW * 600_000 + b"2017-03-01,\xff,I1,2\n"))


def test_a_quotation_mark_that_is_never_closed_is_refused(read: ReadLandingFile, tmp_path: Path) -> None:
    assert "never closed" in _refusal(read, _land(tmp_path, HEADER + b'2017-03-01,S1,I1,"2\n' + ROW * 3))
    assert "fields where the header has 4" in _refusal(
        read, _land(tmp_path, HEADER + b'2017-03-01,"S1,I1,2\n' + ROW * 3)
    )


def test_a_field_of_many_megabytes_is_refused(read: ReadLandingFile, tmp_path: Path) -> None:
    field = b'"' + b"x" * 17_000_000 + b'"'
    assert "row is longer than 4 MB" in _refusal(read, _land(tmp_path, HEADER + b"2017-03-01,S1,I1," + field + b"\n"))


_ZIPPED = gzip.compress(HEADER + os.urandom(5000).hex().encode())


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.parquet", HEADER + ROW, "not a whole Parquet file"),
        ("a.csv.gz", HEADER + ROW, "not a whole gzip file"),
        ("a.csv.gz", _ZIPPED[:-100], "not a whole gzip file"),
        ("a.csv.gz", _ZIPPED[:-8] + bytes(8), "not a whole gzip file"),
        ("a.csv.gz", _ZIPPED + b"rest", "not a whole gzip file"),
        ("a.csv", b"PAR1\x00\xff\xfe", "not text but a Parquet file"),
    ],
    ids=["CSV named Parquet", "CSV named gzip", "cut gzip", "wrong checksum", "rest after gzip", "Parquet named CSV"],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    read: ReadLandingFile, tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    message = _refusal(read, _land(tmp_path, content, name))
    assert message.startswith(f"landing file pos_sales/{name}: {problem}")


def test_a_truncated_or_damaged_parquet_file_is_refused(read: ReadLandingFile, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    items = pa.table({"item_id": [str(n) for n in range(10_000)]})
    # Without compression only the checksum of a page can tell that a letter in it has changed.
    pq.write_table(items, whole, write_page_checksum=True, use_dictionary=False, compression="none")
    content = whole.read_bytes()
    assert "not a whole Parquet file" in _refusal(read, _land(tmp_path, content[:-100], "a.parquet", "items"))
    damaged = content[:500] + bytes([content[500] ^ 1]) + content[501:]
    assert "not a whole Parquet file" in _refusal(read, _land(tmp_path, damaged, "a.parquet", "items"))


def test_parquet_types_without_a_text_form_are_refused_all_at_once(read: ReadLandingFile, tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    path = tmp_path / "items" / "a.parquet"
    pl.DataFrame({"item_id": [b"x"], "brand": [["a"]], "unknown": [["b"]]}).write_parquet(path)
    (file,) = discover(tmp_path, "items")[0]
    message = _refusal(read, file)
    assert "column item_id is of the type" in message
    assert "column brand is of the type" in message
    assert "unknown" not in message


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_file_of_no_bytes_is_empty_and_not_broken(read: ReadLandingFile, tmp_path: Path, name: str) -> None:
    file = _land(tmp_path, b"", name)
    assert read(file).height == 0


def test_the_arrival_is_kept_to_the_microsecond(read: ReadLandingFile, tmp_path: Path) -> None:
    arrived = ARRIVED + timedelta(microseconds=1)
    rows = read(_land(tmp_path, HEADER + ROW), ingested_at=arrived)
    assert rows["ingested_at"].to_list() == [arrived]


# JSON Lines


def test_json_values_are_kept_as_they_are_written(read: ReadLandingFile, tmp_path: Path) -> None:
    lines = (
        b'{"business_date": "2017-03-01", "store_id": 7, "item_id": "a\\"\\u00e9", "quantity": 1E2, "till": {"n": 1}}\n'
        b'\r\n{"quantity": 0.10, "item_id": null, "store_id": "", "sold_at": true}\r\n'
        b'{"quantity": 123456789012345678901234567890}'
    )
    rows = read(_land(tmp_path, lines, "a.ndjson"))
    assert rows.select("row_number", "store_id", "item_id", "quantity", "sold_at").rows() == [
        (1, "7", 'a"é', "1E2", None),
        (2, "", None, "0.10", "true"),
        (3, None, None, "123456789012345678901234567890", None),
    ]


def test_json_lines_are_numbered_through_from_batch_to_batch(read: ReadLandingFile, tmp_path: Path) -> None:
    count = 120_000
    lines = "".join(f'{{"item_id": "I{number}"}}\n' for number in range(1, count + 1))
    rows = read(_land(tmp_path, gzip.compress(lines.encode(), 1), "a.jsonl.gz", "items"))
    named_by_number = pl.format("I{}", "row_number") == pl.col("item_id")
    assert rows.select(pl.len(), named_by_number.all()).row(0) == (count, True)


@given(
    st.lists(st.dictionaries(st.sampled_from(["item_id", "brand"]), st.none() | st.text("a\"\\é\n,' 😀")), max_size=8)
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
def test_the_same_rows_in_every_format_are_the_same_raw_rows(
    read: ReadLandingFile, tmp_path: Path, rows: list[dict[str, str | None]]
) -> None:
    rows = [{"item_id": row.get("item_id"), "brand": row.get("brand") or None} for row in rows]
    frame = pl.DataFrame(rows, schema={"item_id": pl.String, "brand": pl.String})
    # An empty text is no value in CSV.
    frame = frame.with_columns(pl.col("item_id").replace("", None).fill_null("I"))
    found = []
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        shutil.rmtree(tmp_path / "items", ignore_errors=True)
        (tmp_path / "items").mkdir()
        path = tmp_path / "items" / name
        match path.suffix:
            case ".csv":
                frame.write_csv(path)
            case ".jsonl":
                frame.write_ndjson(path)
            case ".parquet":
                frame.write_parquet(path)
        (file,) = discover(tmp_path, "items")[0]
        found.append(read(file).drop("file_id"))
    assert found[0].equals(found[1])
    assert found[1].equals(found[2])


# Encodings and extra columns


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "iso-8859-15"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_text_is_read_in_the_declared_encoding(read: ReadLandingFile, tmp_path: Path, encoding: str, name: str) -> None:
    text = "store_id,region\n" + "S1,Zürich\n" * 20_000
    if name == "a.jsonl":
        text = '{"store_id": "S1", "region": "Zürich"}\n' * 20_000
    rows = read(_land(tmp_path, text.encode(encoding), name, "stores"), FeedSettings(encoding=encoding))
    assert rows.group_by("store_id", "region").len().rows() == [("S1", "Zürich", 20_000)]


def test_columns_admitted_by_setting_are_taken_in_as_text(read: ReadLandingFile, tmp_path: Path) -> None:
    file = _land(tmp_path, b"store_id,Till No\nS1,007\n", feed="stores")
    form = FeedSettings(extra_columns={"till": "text", "clerk": "text"}, columns={"till": "Till No"})
    assert read(file, form).select("store_id", "till", "clerk").rows() == [("S1", "007", None)]


# The child process


def test_a_file_that_kills_its_reader_is_refused_and_the_next_is_read_by_another(tmp_path: Path) -> None:
    reader = FileReader(IntakeSettings())
    file = copy_to_spool(_land(tmp_path, HEADER + ROW), tmp_path, max_bytes=MAX_BYTES)
    assert _read_by(reader, file).rows == 1
    # A file of which nothing comes, for which the reader waits until it is killed.
    file.path.unlink()
    os.mkfifo(file.path)
    assert reader._process is not None
    threading.Timer(0.3, reader._process.send_signal, [signal.SIGSEGV]).start()
    with pytest.raises(BrokenFile, match="the process that reads it ended with signal SIGSEGV"):
        _read_by(reader, file)
    again = copy_to_spool(_land(tmp_path, HEADER + ROW + ROW), tmp_path, max_bytes=MAX_BYTES)
    assert _read_by(reader, again).rows == 2
    reader.close()


def test_a_file_that_takes_too_long_is_refused(tmp_path: Path) -> None:
    reader = FileReader(IntakeSettings(max_seconds=1.5))
    file = copy_to_spool(_land(tmp_path, HEADER + ROW), tmp_path, max_bytes=MAX_BYTES)
    file.path.unlink()
    os.mkfifo(file.path)
    with pytest.raises(BrokenFile, match=r"reading it took more than 1.5 s. Split it, or raise intake.max_seconds"):
        _read_by(reader, file)


def test_want_of_room_is_no_fault_of_the_file(tmp_path: Path) -> None:
    reader = FileReader(IntakeSettings())
    spooled = copy_to_spool(_land(tmp_path, HEADER + ROW), tmp_path, max_bytes=MAX_BYTES)
    # A folder in the place of the file that is to be written.
    spooled.path.with_suffix(".rows").mkdir()
    with pytest.raises(IntakeError, match=r"pos_sales/a.csv could not be unpacked"):
        _read_by(reader, spooled)
    reader.close()


def test_the_reader_gets_no_secret_and_loads_no_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETAIL_CUSTOMER_KEY", "secret")
    reader = FileReader(IntakeSettings())
    _read_by(reader, copy_to_spool(_land(tmp_path, HEADER + ROW), tmp_path, max_bytes=MAX_BYTES))
    assert reader._process is not None
    process = Path(f"/proc/{reader._process.pid}")
    environment, libraries = (process / "environ").read_bytes(), (process / "maps").read_text()
    assert b"PATH=" in environment
    assert b"RETAIL" not in environment
    assert "/_polars_runtime" in libraries
    assert "/pandas/" not in libraries
    reader.close()


def _read_by(reader: FileReader, file: SpooledFile) -> ReadFile:
    return reader.read(file, FEEDS["pos_sales"], AS_DOCUMENTED, ingested_at=ARRIVED, first_date=FIRST_DATE, today=TODAY)
