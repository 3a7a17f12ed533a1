"""The landing zone as its suppliers see it: how a file is put there, and what a loader reports.

Here: writing one file of a feed, whole or not at all, and the report of the loaders beside this module. Not
here: reading the landing zone (`sources/files.py`), and judging rows (`cleaning/`).
"""

import gzip
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import polars as pl

from retail_platform.contracts import FEEDS

FORMATS = (".csv", ".csv.gz", ".parquet")
PARQUET_ROW_GROUP = 131_072
GZIP_LEVEL = 4


class LandingError(Exception):
    """A frame is not what its feed promises, or a source is incomplete; the message lists every difference."""


@dataclass(frozen=True)
class LandingFile:
    """A file in the landing zone and the number of its data rows."""

    path: Path
    rows: int

    @property
    def feed(self) -> str:
        return self.path.parent.name


@dataclass(frozen=True)
class LoadReport:
    """What a loader wrote. `notes` are sentences for the user: what is real, simulated, or left out, with counts."""

    files: tuple[LandingFile, ...]
    notes: tuple[str, ...]

    def rows_by_feed(self) -> dict[str, int]:
        """Data rows written per feed, in the order of the files."""
        rows: dict[str, int] = {}
        for file in self.files:
            rows[file.feed] = rows.get(file.feed, 0) + file.rows
        return rows


def write_landing_file(landing: Path, feed: str, name: str, frame: pl.DataFrame | pl.LazyFrame) -> Path:
    """Write `frame` as `landing/<feed>/<name>`, in the format of the name's ending, and return that path.

    The file is written and synced under a temporary name that begins with a dot, which readers ignore, and then
    renamed: a reader sees the old file, or the new one whole. The columns stand in the contract's order, and equal
    content gives equal bytes: a file that is there with them is left as it lies, so that nobody looks into it again.

    Raises `LandingError` if the feed or the format is unknown, the name is not a plain visible file name, or the
    columns are not those of the feed.
    """
    lazy = frame.lazy()
    columns = lazy.collect_schema().names()
    wrong = _differences(feed, name, columns)
    if wrong:
        raise LandingError(f"landing file {feed}/{name}: " + "; ".join(wrong))
    ordered = lazy.select(c for c in FEEDS[feed].column_names if c in columns)
    folder = landing / feed
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.getpid()}-{name}"
    try:
        _write(ordered, partial)
        if not _has_same_content(folder / name, partial):
            partial.replace(folder / name)
    finally:
        partial.unlink(missing_ok=True)
    return folder / name


def _has_same_content(file: Path, other: Path) -> bool:
    """False of a link and of what cannot be read: no use to the platform as it lies there, whatever it holds."""
    try:
        if file.is_symlink() or file.stat().st_size != other.stat().st_size:
            return False
        return _digest(file) == _digest(other)
    except OSError:
        return False


def _digest(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").digest()


def write_landing_files(landing: Path, frames: Iterable[tuple[str, str, pl.DataFrame]]) -> tuple[LandingFile, ...]:
    """Write frames given as (feed, file name, frame) one after the other; only one needs to be in memory."""
    return tuple(
        LandingFile(write_landing_file(landing, feed, name, frame), frame.height) for feed, name, frame in frames
    )


def _differences(feed: str, name: str, columns: list[str]) -> list[str]:
    wrong = []
    if not name.endswith(FORMATS):
        wrong.append(f"the name must end in one of {', '.join(FORMATS)}")
    if name.startswith(".") or name != Path(name).name:
        wrong.append("the name must be a file name that does not begin with a dot")
    if feed not in FEEDS:
        return [*wrong, f"unknown feed {feed}; known are {', '.join(FEEDS)}"]
    known = FEEDS[feed].column_names
    wrong += [f"required column {c} is missing" for c in FEEDS[feed].required_columns if c not in columns]
    wrong += [f"unknown column {c}; the feed has {', '.join(known)}" for c in columns if c not in known]
    return wrong


def _write(frame: pl.LazyFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        # Without a fixed group size the bytes would depend on how the frame happens to be chunked in memory.
        frame.sink_parquet(path, row_group_size=PARQUET_ROW_GROUP)
    else:
        with path.open("wb") as file:
            if path.suffix == ".gz":
                # Polars' own gzip flushes at chunk borders, so equal frames would differ in their bytes.
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=GZIP_LEVEL, mtime=0) as packed:
                    _write_csv(frame, cast(IO[bytes], packed))
            else:
                _write_csv(frame, file)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_csv(frame: pl.LazyFrame, file: IO[bytes]) -> None:
    frame.sink_csv(file, datetime_format="%Y-%m-%dT%H:%M:%S%.f")
