"""Extracts: what they say of themselves survives, nothing half-written is seen, and comparing keeps count."""

from collections import Counter
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retail_platform.sources.extracts import (
    Extract,
    ExtractWriter,
    SourceError,
    extract_of,
    landed_extracts,
    not_yet_taken_in,
    remove_unfinished,
    secret,
)
from retail_platform.sources.files import discover

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS = st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["1", "2", None])), max_size=12)


def writer(landing: Path, source: str = "tills", number: int = 1) -> ExtractWriter:
    return ExtractWriter(landing, "stores", source, ["store_id", "region"], NOW, number)


def frame(rows: list[tuple[str | None, str | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"left": pl.String, "right": pl.String}, orient="row")


def test_an_extract_carries_its_source_and_its_stretch_and_is_a_landing_file(tmp_path: Path) -> None:
    with writer(tmp_path) as file:
        file.write(pl.DataFrame({"region": ["CA", None], "store_id": ["S1", "S2"]}))
        landed = file.land("10", "20")
    assert (landed.feed, landed.rows) == ("stores", 2)
    assert extract_of(landed.path, landed.path.name) == Extract("tills", "10", "20")
    assert pl.read_parquet(landed.path).rows() == [("S1", "CA"), ("S2", None)]
    assert [found.path for found in discover(tmp_path, "stores")[0]] == [landed.path]


def test_extracts_with_equal_rows_are_not_taken_for_one_file(tmp_path: Path) -> None:
    hashes = set()
    for number, (after, to) in enumerate([(None, "1"), ("1", "2"), ("1", "2")], start=1):
        with writer(tmp_path, number=number) as file:
            file.write(pl.DataFrame({"store_id": ["S1"], "region": ["CA"]}))
            hashes.add(sha256(file.land(after, to).path.read_bytes()).hexdigest())
    assert len(hashes) == 3


def test_what_was_not_landed_is_not_seen_and_leaves_nothing(tmp_path: Path) -> None:
    with writer(tmp_path) as file:
        file.write(pl.DataFrame({"store_id": ["S1"], "region": ["CA"]}))
        assert discover(tmp_path, "stores")[0] == []
    assert list(tmp_path.rglob("*.parquet")) == []


def test_what_a_killed_process_left_is_removed_but_not_another_source_s(tmp_path: Path) -> None:
    for name in (".extract-tills-1.parquet", ".extract-tills_2-1.parquet", "extract-tills-0.parquet"):
        (tmp_path / "stores").mkdir(exist_ok=True)
        (tmp_path / "stores" / name).touch()
    remove_unfinished(tmp_path, "stores", "tills")
    assert {file.name for file in (tmp_path / "stores").iterdir()} == {
        ".extract-tills_2-1.parquet",
        "extract-tills-0.parquet",
    }
    assert [file.name for file in landed_extracts(tmp_path, "stores", "tills")] == ["extract-tills-0.parquet"]


@pytest.mark.parametrize("content", [b"", b"no Parquet"])
def test_a_file_that_only_has_the_name_of_an_extract_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "extract-tills-1.parquet"
    file.write_bytes(content)
    assert extract_of(file, file.name) is None
    pl.DataFrame({"store_id": ["S1"]}).write_parquet(file)
    assert extract_of(file, file.name) is None


@settings(deadline=None)
@given(ROWS, ROWS)
def test_rows_not_yet_taken_in_are_the_difference_with_multiplicity_in_their_order(
    rows: list[tuple[str | None, str | None]], known: list[tuple[str | None, str | None]]
) -> None:
    held, expected = Counter(known), []
    for row in rows:
        if held[row]:
            held[row] -= 1
        else:
            expected.append(row)
    found = not_yet_taken_in(frame(rows), frame(known)).rows()
    assert found == expected


def test_a_secret_that_is_not_set_is_asked_for_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILLS_PASSWORD", raising=False)
    with pytest.raises(SourceError, match="source tills: the environment variable TILLS_PASSWORD is not set"):
        secret("tills", "TILLS_PASSWORD")
    monkeypatch.setenv("TILLS_PASSWORD", "x")
    assert secret("tills", "TILLS_PASSWORD") == "x"
