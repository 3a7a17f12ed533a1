"""What assets are given to work with: the settings and the lake."""

from contextlib import ExitStack
from typing import Any

from dagster_duckdb import DuckDBResource

from retail_platform.lakehouse import Lakehouse
from retail_platform.settings import Settings


def open_lakehouse(settings: Settings) -> Lakehouse:
    """The lake of these settings on connections of Dagster's own DuckDB resource. Opens nothing yet."""
    # The lakehouse loads its own extensions from the installed wheels and then forbids unsigned ones; checking their
    # signatures on every connection would cost more than most reads.
    duckdb = DuckDBResource(database=":memory:", connection_config={"allow_unsigned_extensions": "true"})

    def connect() -> Any:
        with ExitStack() as stack:
            connection = stack.enter_context(duckdb.get_connection())
            # The lakehouse closes what it opens; the stack must not close it first.
            stack.pop_all()
            return connection

    return Lakehouse(settings, connect)
