"""The account of business days from remembered counts is that of every row, whatever was written in between."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retail_platform.contracts import FEEDS, TABLES
from retail_platform.lakehouse import Append, Lakehouse, ReplaceSlices
from retail_platform.orchestration.staleness import LastCommit, pending_days
from retail_platform.settings import LakeSettings, Settings
from retail_platform_tests.lakehouse.shop import BY

FEED = FEEDS["inventory"]
DAYS = [date(2017, 3, 1) + timedelta(days=number) for number in range(4)]
TABLES_OF_THE_ACCOUNT = (FEED.raw_table, FEED.clean_table, "quarantine.rejected_rows", "quarantine.duplicate_rows")

change = st.tuples(st.sampled_from(TABLES_OF_THE_ACCOUNT), st.sampled_from(DAYS), st.integers(0, 3))


def some_rows(table: str, day: date, rows: int, numbers: Iterator[int]) -> pl.DataFrame:
    """Rows of a day that say as little as the table's columns need."""
    schema = TABLES[table].polars_schema
    of_type: dict[Any, Any] = {
        pl.String: "x",
        pl.Int64: 1,
        pl.Float64: 1.0,
        pl.Date: day,
        pl.List(pl.String): ["broken"],
    }
    values = {name: of_type.get(kind, datetime(2017, 3, 1)) for name, kind in schema.items()}
    values |= {"feed": FEED.name} if "feed" in schema else {}
    one_by_one = [values | ({"row_number": next(numbers)} if "row_number" in schema else {}) for _ in range(rows)]
    return pl.DataFrame(one_by_one, schema=schema)


def days_by_every_row(lake: Lakehouse) -> list[date]:
    """The slow reference: days whose rows do not add up."""
    days = lake.query(
        f"""
        WITH counted AS (
            SELECT partition_date AS day, count(*) AS rows FROM {FEED.raw_table} GROUP BY ALL
            UNION ALL SELECT {FEED.date_column}, -count(*) FROM {FEED.clean_table} GROUP BY ALL
            UNION ALL SELECT partition_date, -count(*) FROM quarantine.rejected_rows WHERE feed = $1 GROUP BY ALL
            UNION ALL SELECT partition_date, -count(*) FROM quarantine.duplicate_rows WHERE feed = $1 GROUP BY ALL
        )
        SELECT day FROM counted GROUP BY day HAVING sum(rows) <> 0 ORDER BY day
        """,
        [FEED.name],
    )
    return days["day"].to_list()


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(change, min_size=4, max_size=5))
def test_days_that_do_not_add_up_are_found_after_any_writes(
    tmp_path_factory: Any, changes: Sequence[tuple[str, date, int]]
) -> None:
    home: Path = tmp_path_factory.mktemp("account")
    lake = Lakehouse(Settings(home=home, lake=LakeSettings(memory_limit="1GB")))
    lake.commit([Append(TABLES[name], TABLES[name].empty()) for name in TABLES_OF_THE_ACCOUNT], BY)
    numbers = count(1)
    for table, day, rows in changes:
        frame = some_rows(table, day, rows, numbers)
        if table == FEED.raw_table and rows:
            lake.commit([Append(TABLES[table], frame)], BY)
        elif table == FEED.raw_table:
            with lake.connection(read_only=False) as connection:
                connection.execute(f"DELETE FROM {table} WHERE partition_date = ? AND row_number % 2 = 0", [day])
        else:
            column = str(FEED.date_column) if table == FEED.clean_table else "partition_date"
            lake.commit([ReplaceSlices(TABLES[table], frame, [{column: day}])], BY)
        expected = days_by_every_row(lake)
        up_to_date = {name: LastCommit(1, "1") for name in (FEED.clean_table, "clean.items", "clean.stores")}
        assert pending_days(lake, FEED, up_to_date) == expected
