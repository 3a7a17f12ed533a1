"""A small table that the lakehouse tests write, and ways to make one like it."""

from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

import duckdb
import pandera.polars as pa
import polars as pl

from retail_platform.contracts.table import Table, column
from retail_platform.lakehouse import Lakehouse, Provenance
from retail_platform.lakehouse.connection import in_memory
from retail_platform.settings import Settings

BY = Provenance(asset="shop/sales", run_id="run-1")
MONDAY, TUESDAY = date(2017, 3, 6), date(2017, 3, 7)


def make_table(name: str, columns: Mapping[str, pl.DataType], nullable: Collection[str] = ()) -> Table:
    """A contract of its own, in no registry."""
    fields: dict[str, Any] = {c: column(c, nullable=c in nullable) for c in columns}
    model = type("Model", (pa.DataFrameModel,), {**fields, "__annotations__": dict(columns), "__module__": __name__})
    return Table(name, model, (next(iter(columns)),), "team:tests", "", None, None)


SALES_COLUMNS: dict[str, pl.DataType] = {"day": pl.Date(), "store": pl.String(), "units": pl.Int64()}
SALES = make_table("shop.sales", SALES_COLUMNS)
STOCK = make_table("shop.stock", SALES_COLUMNS)


def sales(day: date, *units: int) -> pl.DataFrame:
    """One row per figure in `units`, in stores S0, S1, ..."""
    rows = [{"day": day, "store": f"S{number}", "units": figure} for number, figure in enumerate(units)]
    return pl.DataFrame(rows, schema=SALES.polars_schema)


def counting_lake(settings: Settings) -> tuple[Lakehouse, list[duckdb.DuckDBPyConnection]]:
    """A lake, and every connection that it opens."""
    opened: list[duckdb.DuckDBPyConnection] = []

    def connect() -> duckdb.DuckDBPyConnection:
        opened.append(in_memory())
        return opened[-1]

    return Lakehouse(settings, connect), opened
