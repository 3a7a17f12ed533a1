"""Extracts: landing files that a connector wrote, and how far into its source they reach.

Here: writing such a file, reading back what it says of itself, and what a connector is told of the extracts that the
lake holds. Not here: any source (`sources/postgres.py`, `sources/open_meteo.py`, `sources/fred.py`), and how extracts
are taken in (`orchestration/`).

The position travels inside the file, so that the ledger can have it in the same transaction as the rows. Being part of
the content, it also keeps two extracts with equal rows apart, which are known by the hash of their content.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import polars as pl

from retail_platform.contracts import FEEDS
from retail_platform.sources.landing import LandingFile

PREFIX = "extract-"
_METADATA_KEY = "retail_platform.extract"
_STAMP = "%Y%m%dT%H%M%S%f"


class SourceError(Exception):
    """A source cannot be read; the message names the source, what is wrong and the remedy."""


class SourceInterrupted(SourceError):
    """The connection to a source was lost, so that another attempt may succeed."""


@dataclass(frozen=True)
class Extract:
    """What an extract says of itself: its source, and the positions after which it begins and to which it reaches.

    `after` is None where it begins at the beginning.
    """

    source: str
    after: str | None
    to: str


@dataclass(frozen=True)
class TakenIn:
    """What the lake holds of one source.

    `extracts` has one row per extract: file_id, extracted_after, extracted_to, rows, ingested_at. `rows_of` gives the
    rows of extracts, by file id, as the raw table holds them: file_id and the feed's columns as text.
    """

    extracts: pl.DataFrame
    rows_of: Callable[[Sequence[str]], pl.DataFrame]


@dataclass(frozen=True)
class Landed:
    """What one extract landed. `notes` are sentences about rows that were left where they are."""

    files: tuple[LandingFile, ...]
    notes: tuple[str, ...]


def secret(source: str, variable: str) -> str:
    """The value of the environment variable that the settings of `source` name. Raises `SourceError` without one."""
    value = os.environ.get(variable)
    if not value:
        raise SourceError(f"source {source}: the environment variable {variable} is not set; put the secret there")
    return value


class ExtractWriter:
    """A landing file in the making, written batch by batch under a name that readers pass over.

    Used with `with`: what has not been landed by then is thrown away. All columns are text.
    """

    def __init__(
        self, landing: Path, feed: str, source: str, columns: Sequence[str], begun: datetime, number: int
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder = landing / feed
        folder.mkdir(parents=True, exist_ok=True)
        self._columns = [name for name in FEEDS[feed].column_names if name in columns]
        self._source = source
        self._path = folder / f"{PREFIX}{source}-{begun.strftime(_STAMP)}-{number:05d}.parquet"
        self._partial = self._path.with_name(f".{self._path.name}")
        schema = pa.schema([(name, pa.large_string()) for name in self._columns])
        self._writer = pq.ParquetWriter(self._partial, schema, compression="zstd")
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        self._partial.unlink(missing_ok=True)

    def write(self, frame: pl.DataFrame) -> None:
        """Add rows; of `frame` the columns that the file was opened with are taken."""
        text = frame.select(pl.col(name).cast(pl.String) for name in self._columns)
        if text.height:
            self._writer.write_table(text.to_arrow().cast(self._writer.schema))
            self.rows += text.height

    def land(self, after: str | None, to: str) -> LandingFile:
        """Close the file, see it on disk and give it its visible name."""
        description = json.dumps({"source": self._source, "after": after, "to": to, "name": self._path.name})
        self._writer.add_key_value_metadata({_METADATA_KEY: description})
        self._writer.close()
        descriptor = os.open(self._partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._partial.replace(self._path)
        return LandingFile(self._path, self.rows)


def extract_of(path: Path, name: str) -> Extract | None:
    """What the file at `path`, which landed under `name`, says of the source that it was extracted from; None for a
    file that is no extract."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not name.startswith(PREFIX):
        return None
    try:
        metadata = pq.read_metadata(path).metadata or {}
        said = json.loads(metadata[_METADATA_KEY.encode()])
        return Extract(said["source"], said["after"], said["to"])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None


def landed_extracts(landing: Path, feed: str, source: str) -> list[Path]:
    """The extracts of a source that lie in the landing zone, in the order in which they were made."""
    return sorted((landing / feed).glob(f"{PREFIX}{source}-*.parquet"))


def remove_unfinished(landing: Path, feed: str, source: str) -> None:
    """Remove what a process left that died while it wrote an extract. To be called while nobody else extracts."""
    for partial in (landing / feed).glob(f".{PREFIX}{source}-*.parquet"):
        partial.unlink(missing_ok=True)


def not_yet_taken_in(rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The rows of `rows` that `known` does not hold, with multiplicity: of three equal rows, where two are known, one.

    Both frames have the same columns, which are compared as they are, null being equal to null; the order of `rows`
    is kept.
    """
    columns = rows.columns
    occurrence = pl.int_range(pl.len()).over(columns).alias("_occurrence")
    return (
        rows.with_columns(occurrence)
        .join(
            known.select(columns).with_columns(occurrence),
            on=[*columns, "_occurrence"],
            how="anti",
            nulls_equal=True,
            maintain_order="left",
        )
        .drop("_occurrence")
    )
