"""Which names are time zones. Not here: conversions (`cleaning/time_zones.py`)."""

from datetime import UTC, datetime

import polars as pl


def is_time_zone(name: str) -> bool:
    """Whether `name` is a time zone of the IANA database, such as Europe/Berlin."""
    try:
        pl.Series([datetime(2017, 1, 1, tzinfo=UTC)]).dt.convert_time_zone(name)
    except pl.exceptions.ComputeError:
        return False
    return True
