"""What assets are given to work with: the settings and the lake."""

from contextlib import ExitStack
from typing import Any

from dagster_duckdb import DuckDBResource

from retail_platform.lakehouse import Lakehouse
from retail_platform.settings import Settings


def open_lakehouse(settings: Settings) -> Lakehouse:
    """The lake of these settings on connections of Dagster's own DuckDB resource. Opens nothing yet."""
    duckdb = DuckDBResource(database=":memory:")

    def connect() -> Any:
        with ExitStack() as stack:
            connection = stack.enter_context(duckdb.get_connection())
            # The lakehouse closes what it opens; the stack must not close it first.
            stack.pop_all()
            return connection

    return Lakehouse(settings, connect)
