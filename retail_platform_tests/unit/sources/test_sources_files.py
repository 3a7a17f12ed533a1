"""The landing zone: which files are found, which are complete, and what a copy of one is."""

import hashlib
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from retail_platform.settings import IntakeSettings
from retail_platform.sources.files import (
    BrokenFile,
    IntakeError,
    LandingFile,
    StillGrowing,
    copy_to_spool,
    discover,
    settled,
)

HEADER = b"business_date,store_id,item_id,quantity\n"
ROW = b"2017-03-01,S1,I1,2\n"
MAX_BYTES = IntakeSettings().max_file_bytes


def _land(folder: Path, content: bytes, name: str = "a.csv", feed: str = "pos_sales") -> LandingFile:
    path = folder / feed / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    (file,) = discover(folder, feed)[0]
    return file


# What is found


def test_files_are_found_by_their_endings_below_the_folder_of_the_feed(tmp_path: Path) -> None:
    folder = tmp_path / "items"
    (folder / "2017").mkdir(parents=True)
    for name in (
        "b.csv",
        "2017/a.csv.gz",
        "c.PARQUET",
        "notes.xlsx",
        ".hidden.csv",
        "d.csv.part",
        "e.jsonl",
        "f.NDJSON.gz",
    ):
        (folder / name).write_bytes(b"x")
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "s.csv").touch()
    found, ignored = discover(tmp_path, "items")
    assert [file.name for file in found] == ["2017/a.csv.gz", "b.csv", "c.PARQUET", "e.jsonl", "f.NDJSON.gz"]
    assert [(file.format, file.compressed) for file in found] == [
        ("csv", True),
        ("csv", False),
        ("parquet", False),
        ("jsonl", False),
        ("jsonl", True),
    ]
    assert {file.name for file in ignored} == {"notes.xlsx", "d.csv.part"}
    assert all("does not end in .csv, .csv.gz, .jsonl" in file.reason for file in ignored)


def test_links_pipes_and_names_that_are_not_utf8_are_ignored_with_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "items"
    folder.mkdir()
    secret = tmp_path / "secret.csv"
    secret.touch()
    (folder / "link.csv").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.csv")
    (folder / os.fsdecode(b"caf\xe9.csv")).touch()
    found, ignored = discover(tmp_path, "items")
    assert found == []
    assert {file.name: file.reason.split(";")[0] for file in ignored} == {
        "link.csv": "a symbolic link",
        "folder": "a symbolic link",
        "pipe.csv": "not a regular file",
        "caf\ufffd.csv": "its name is not UTF-8",
    }


def test_a_feed_without_a_folder_has_no_files(tmp_path: Path) -> None:
    assert discover(tmp_path, "items") == ([], [])


def test_a_file_is_described_by_its_size_and_time_in_utc(tmp_path: Path) -> None:
    file = _land(tmp_path, HEADER)
    modified = datetime(2017, 5, 31, 22, 0, 5)
    os.utime(file.path, (0, modified.replace(tzinfo=UTC).timestamp()))
    (again,) = discover(tmp_path, "pos_sales")[0]
    assert (again.bytes, again.modified_at) == (len(HEADER), modified)


@pytest.mark.parametrize("seconds", [-(10.0**12), 10.0**12])
def test_times_that_no_calendar_has_are_borne(tmp_path: Path, seconds: float) -> None:
    file = _land(tmp_path, HEADER)
    try:
        os.utime(file.path, (seconds, seconds))
    except OSError:
        pytest.skip("the file system holds no such times")
    assert len(discover(tmp_path, "pos_sales")[0]) == 1


# What is copied


def test_the_copy_holds_the_bytes_and_is_known_by_their_hash(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    copy = copy_to_spool(_land(tmp_path, content), tmp_path, max_bytes=MAX_BYTES)
    assert copy.file_id == hashlib.sha256(content).hexdigest()
    assert copy.path.read_bytes() == content


@pytest.mark.parametrize("name", ["x*.csv", "it's.csv", "two\nlines.csv", "%s{}[a].csv", "é.csv", "a" * 200 + ".csv"])
def test_the_copy_has_a_name_of_our_own(tmp_path: Path, name: str) -> None:
    copy = copy_to_spool(_land(tmp_path, HEADER, name), tmp_path, max_bytes=MAX_BYTES)
    assert re.fullmatch(r"[0-9a-f]{32}\.landed", copy.path.name)


@pytest.mark.parametrize("change", ["grown", "shrunk", "replaced", "touched", "gone"])
def test_a_file_that_has_changed_since_it_was_found_is_left(tmp_path: Path, change: str) -> None:
    file = _land(tmp_path, HEADER)
    match change:
        case "grown":
            file.path.write_bytes(HEADER + ROW)
        case "shrunk":
            file.path.write_bytes(HEADER[:-1])
        case "replaced":
            other = tmp_path / "other"
            other.write_bytes(HEADER.swapcase())
            other.replace(file.path)
        case "touched":
            os.utime(file.path, (1, 1))
        case "gone":
            file.path.unlink()
    spool = tmp_path / "spool"
    spool.mkdir()
    with pytest.raises(StillGrowing):
        copy_to_spool(file, spool, max_bytes=MAX_BYTES)
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_has_taken_the_place_of_a_file_is_not_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    file = _land(tmp_path, HEADER)
    file.path.unlink()
    if kind == "link":
        secret = tmp_path / "secret"
        secret.write_bytes(HEADER)
        file.path.symlink_to(secret)
    else:
        os.mkfifo(file.path)
    with pytest.raises((StillGrowing, IntakeError)):
        copy_to_spool(file, tmp_path, max_bytes=MAX_BYTES)
    assert not list(tmp_path.glob("*.landed"))


def test_a_file_beyond_the_limit_is_refused_before_it_is_copied(tmp_path: Path) -> None:
    with pytest.raises(BrokenFile, match=r"40 bytes, more than 39. Split it, or raise intake.max_file_bytes"):
        copy_to_spool(_land(tmp_path, HEADER), tmp_path, max_bytes=39)


def test_a_file_that_does_not_change_between_two_looks_is_settled(tmp_path: Path) -> None:
    still = _land(tmp_path, HEADER)
    (tmp_path / "pos_sales" / "b.csv").write_bytes(HEADER)
    before, _ = discover(tmp_path, "pos_sales")
    (tmp_path / "pos_sales" / "b.csv").write_bytes(HEADER + ROW)
    (tmp_path / "pos_sales" / "c.csv").write_bytes(HEADER)
    assert settled(before, discover(tmp_path, "pos_sales")[0]) == [still]


def test_a_file_is_quiet_some_time_after_it_was_written_to(tmp_path: Path) -> None:
    file = _land(tmp_path, HEADER)
    assert not file.is_quiet(file.modified_at + timedelta(seconds=1.9), 2)
    assert file.is_quiet(file.modified_at + timedelta(seconds=2), 2)
    assert not file.is_quiet(file.modified_at - timedelta(hours=1), 2), "the clock of the file server is ahead"
