"""A landing file read as the platform reads it, for tests that want its rows and no lake."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Protocol

import polars as pl

from retail_platform.contracts import FEEDS
from retail_platform.contracts.feeds import raw_table
from retail_platform.settings import FeedSettings, IntakeSettings
from retail_platform.sources.files import LandingFile, copy_to_spool
from retail_platform.sources.reading import FileReader

FIRST_DATE, ARRIVED = date(2010, 1, 1), datetime(2017, 6, 1, 8, 30)


class ReadLandingFile(Protocol):
    """Gives the rows of a landing file as the raw table wants them."""

    def __call__(
        self, file: LandingFile, settings: FeedSettings | None = None, *, ingested_at: datetime = ARRIVED
    ) -> pl.DataFrame: ...


@contextmanager
def reading(spool: Path, intake: IntakeSettings) -> Iterator[ReadLandingFile]:
    """One child process for all files that are read inside."""
    reader = FileReader(intake)

    def read(
        file: LandingFile, settings: FeedSettings | None = None, *, ingested_at: datetime = ARRIVED
    ) -> pl.DataFrame:
        settings = settings or FeedSettings()
        feed = FEEDS[file.feed]
        found = reader.read(
            copy_to_spool(file, spool, max_bytes=intake.max_file_bytes),
            feed,
            settings,
            ingested_at=ingested_at,
            first_date=FIRST_DATE,
            today=ingested_at.date(),
        )
        return pl.read_parquet(found.path) if found.rows else raw_table(feed, settings.extra_columns).empty()

    yield read
    reader.close()
