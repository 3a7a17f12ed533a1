"""Landing files are whole, repeatable and of their feed's shape."""

import gzip
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from retail_platform.sources.landing import LandingError, LoadReport, write_landing_file, write_landing_files

NAMES = ["day.csv", "day.csv.gz", "day.parquet"]


def lines(rows: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "quantity": [float(n) for n in range(rows)],
            "business_date": [date(2017, 3, 1)] * rows,
            "store_id": ["S1"] * rows,
            "item_id": [f"I{n}" for n in range(rows)],
            "sold_at": [datetime(2017, 3, 1, 18, 22, 5)] * rows,
        },
    )


def read(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, try_parse_dates=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_landing_file_holds_the_frame_with_columns_in_the_order_of_the_contract(tmp_path: Path, name: str) -> None:
    path = write_landing_file(tmp_path, "pos_sales", name, lines())
    assert path == tmp_path / "pos_sales" / name
    assert read(path).equals(lines().select("business_date", "store_id", "item_id", "quantity", "sold_at"))


@pytest.mark.parametrize("name", NAMES)
def test_equal_content_gives_equal_bytes_however_the_frame_lies_in_memory(tmp_path: Path, name: str) -> None:
    frame = lines(300_000)
    pieces = pl.concat([frame[:7], frame[7:140_000], frame[140_000:]], rechunk=False)
    once = write_landing_file(tmp_path / "once", "pos_sales", name, frame)
    again = write_landing_file(tmp_path / "again", "pos_sales", name, pieces)
    lazily = write_landing_file(tmp_path / "lazily", "pos_sales", name, pieces.lazy().filter(pl.col("quantity") >= 0))
    assert once.read_bytes() == again.read_bytes() == lazily.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_there_with_equal_content_is_left_as_it_lies(tmp_path: Path, name: str) -> None:
    before = write_landing_file(tmp_path, "pos_sales", name, lines()).stat()
    after = write_landing_file(tmp_path, "pos_sales", name, lines()).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    changed = write_landing_file(tmp_path, "pos_sales", name, lines(2)).stat()
    assert changed.st_ino != before.st_ino


def test_a_link_to_equal_content_is_replaced_by_the_file(tmp_path: Path) -> None:
    elsewhere = write_landing_file(tmp_path / "elsewhere", "pos_sales", "day.csv", lines())
    link = tmp_path / "pos_sales" / "day.csv"
    link.parent.mkdir()
    link.symlink_to(elsewhere)
    assert not write_landing_file(tmp_path, "pos_sales", "day.csv", lines()).is_symlink()


def test_a_compressed_file_carries_no_clock(tmp_path: Path) -> None:
    content = write_landing_file(tmp_path, "pos_sales", "day.csv.gz", lines()).read_bytes()
    assert content[4:8] == b"\0\0\0\0"
    assert gzip.decompress(content).startswith(b"business_date,store_id")


def test_times_in_text_files_are_written_to_the_second_and_keep_fractions(tmp_path: Path) -> None:
    moments = [datetime(2017, 3, 1, 18, 22, 5), datetime(2017, 3, 1, 18, 22, 5, 250_000)]
    path = write_landing_file(tmp_path, "pos_sales", "a.csv", lines(2).with_columns(sold_at=pl.Series(moments)))
    assert [line.split(",")[-1] for line in path.read_text().splitlines()[1:]] == [
        "2017-03-01T18:22:05",
        "2017-03-01T18:22:05.250",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = write_landing_file(tmp_path, "pos_sales", name, lines())
    before = path.read_bytes()
    broken = lines(200_000).lazy().with_columns(pl.col("item_id").str.slice(1).str.to_integer(base=2).cast(pl.String))
    with pytest.raises(pl.exceptions.PolarsError):
        write_landing_file(tmp_path, "pos_sales", name, broken)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_every_difference_from_the_feed_is_named_at_once(tmp_path: Path) -> None:
    frame = lines().rename({"quantity": "units", "store_id": "shop"})
    with pytest.raises(LandingError) as refused:
        write_landing_file(tmp_path, "pos_sales", "sales.xlsx", frame)
    for part in ("pos_sales/sales.xlsx", ".parquet", "quantity is missing", "store_id is missing", "units", "shop"):
        assert part in str(refused.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", [".hidden.csv", "../escape.csv", "folder/day.csv"])
def test_a_name_must_be_a_plain_visible_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(LandingError, match="file name"):
        write_landing_file(tmp_path, "pos_sales", name, lines())


def test_an_unknown_feed_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(LandingError, match="unknown feed sales; known are pos_sales, inventory"):
        write_landing_file(tmp_path, "sales", "day.csv", lines())


def test_a_report_counts_rows_per_feed(tmp_path: Path) -> None:
    stores = pl.DataFrame({"store_id": ["S1"]})
    frames = [("pos_sales", "a.csv", lines(3)), ("pos_sales", "b.csv", lines(4)), ("stores", "a.csv", stores)]
    report = LoadReport(write_landing_files(tmp_path, iter(frames)), notes=())
    assert report.rows_by_feed() == {"pos_sales": 7, "stores": 1}
