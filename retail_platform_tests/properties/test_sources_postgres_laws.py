"""Whatever is sold, posted late, changed or sold again between extracts, and wherever an extract breaks off: the landed
rows are the rows of the source, each as often as it was there."""

from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retail_platform.settings import FeedSettings, PostgresSource
from retail_platform.sources.extracts import landed_extracts
from retail_platform.sources.postgres import extract
from retail_platform_tests.extracts import taken_in_from_landing
from retail_platform_tests.postgres import PASSWORD, USER

NOON = datetime(2026, 3, 1, 12)
LOOK_BACK = timedelta(days=1)

SELL = st.tuples(st.just("sell"), st.integers(0, 40), st.integers(1, 4))
"""Hours after noon (a later hour or an earlier one), and how many equal lines."""
CHANGE = st.tuples(st.just("change"), st.integers(0, 40), st.integers(5, 9))
EXTRACT = st.tuples(st.just("extract"), st.integers(0, 3), st.integers(1, 6))
"""How many of the landed files a crash leaves (3: all), and the rows of a file."""


class Source:
    """A table and the landing zone beside it."""

    def __init__(self, address: str, table: str, landing: Path) -> None:
        self.address, self.landing = address, landing
        self.source = PostgresSource(
            kind="postgres",
            feed="inventory",
            address=f"postgresql://{USER}@{address.rsplit('@', 1)[1]}",
            password_variable="STOCK_PASSWORD",  # noqa: S106
            table=table,
            cursor="posted_at",
            look_back=LOOK_BACK.total_seconds() / 86_400,
        )

    def extract(self, files_left: int, rows_per_file: int) -> None:
        before = set(landed_extracts(self.landing, "inventory", "stock"))
        source = self.source.model_copy(update={"rows_per_file": rows_per_file})
        extract(
            "stock", source, FeedSettings(), self.landing, taken_in_from_landing(self.landing, "inventory", "stock")
        )
        if files_left < 3:
            for file in [f for f in landed_extracts(self.landing, "inventory", "stock") if f not in before][
                files_left:
            ]:
                file.unlink()

    def landed(self) -> Counter[tuple[Any, ...]]:
        columns = ["item_id", "on_hand"]
        files = landed_extracts(self.landing, "inventory", "stock")
        return Counter(row for file in files for row in pl.read_parquet(file, columns=columns).rows())


@pytest.mark.usefixtures("_password")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.one_of(SELL, CHANGE, EXTRACT), max_size=14))
def test_landed_rows_are_the_rows_of_the_source(
    database: tuple[str, psycopg.Connection[Any]], steps: list[tuple[str, int, int]]
) -> None:
    address, connection = database
    table = f"stock_{uuid4().hex}"
    connection.execute(
        f"CREATE TABLE {table} (as_of_date date, store_id text, item_id text, on_hand int, posted_at timestamp)"
    )
    changes = 0
    latest = NOON
    with TemporaryDirectory() as landing:
        source = Source(address, table, Path(landing))
        for step, first, second in steps:
            if step == "sell":
                # Late, but never later than the look-back allows.
                posted_at = max(latest - LOOK_BACK + timedelta(hours=1), NOON + timedelta(hours=first))
                latest = max(latest, posted_at)
                values = ("2026-03-01", "S1", f"I{first % 3}", 1, posted_at)
                for _ in range(second):
                    connection.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s)", values)
            elif step == "change":
                changes += 1
                connection.execute(
                    f"UPDATE {table} SET on_hand = on_hand + %s, posted_at = %s WHERE ctid IN "
                    f"(SELECT ctid FROM {table} WHERE item_id = %s LIMIT 1)",
                    (second * 10 * changes, latest, f"I{first % 3}"),
                )
            else:
                source.extract(first, second)
        source.extract(3, 2)
        now = Counter(connection.execute(f"SELECT item_id, on_hand::text FROM {table}").fetchall())
        assert now <= source.landed()
        if not changes:
            assert now == source.landed()
        again = source.landed()
        source.extract(3, 1)
        assert source.landed() == again


@pytest.mark.usefixtures("_password")
@pytest.mark.parametrize(
    ("kind", "values", "positions"),
    [
        ("bigint", ["9", "10", "100"], ["9", "10", "100"]),
        ("date", ["2026-01-09", "2026-01-10", "2026-02-01"], ["2026-01-09", "2026-01-10", "2026-02-01"]),
        (
            "timestamptz",
            ["2026-01-09 10:00+02", "2026-01-09 09:00:00.5+00", "2026-01-09 09:00:00.51+00"],
            ["2026-01-09 08:00:00+00", "2026-01-09 09:00:00.5+00", "2026-01-09 09:00:00.51+00"],
        ),
    ],
)
def test_positions_grow_as_the_cursor_s_values_do(
    database: tuple[str, psycopg.Connection[Any]], tmp_path: Path, kind: str, values: list[str], positions: list[str]
) -> None:
    address, connection = database
    table = f"stock_{uuid4().hex}"
    connection.execute(
        f"CREATE TABLE {table} (as_of_date date, store_id text, item_id text, on_hand int, posted_at {kind})"
    )
    source = Source(address, table, tmp_path)
    for value, position in zip(values, positions, strict=True):
        connection.execute(f"INSERT INTO {table} VALUES ('2026-03-01', 'S1', 'I1', 1, %s)", [value])
        source.extract(3, 2)
        assert taken_in_from_landing(tmp_path, "inventory", "stock").extracts["extracted_to"][-1] == position
    assert source.landed() == Counter({("I1", "1"): 3})


@pytest.fixture
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCK_PASSWORD", PASSWORD)


@pytest.fixture(scope="module")
def database(postgres_server: Any) -> Any:
    address = postgres_server.new_database(f"laws_{uuid4().hex}")
    with psycopg.connect(address, autocommit=True) as connection:
        yield address, connection
