"""A PostgreSQL database as a source, on a real server: nothing is lost and nothing comes twice, whatever breaks."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration import extraction
from retail_platform.orchestration.extraction import SourceReport, bring_in, probe
from retail_platform.orchestration.ingestion import Ingestion
from retail_platform.settings import FeedSettings, IntakeSettings, LakeSettings, PostgresSource, Settings
from retail_platform.sources.extracts import SourceError
from retail_platform_tests.postgres import PASSWORD, USER, PostgresServer, killable_postgres, postgres_binaries

COLUMNS = "business_date, store_id, item_id, quantity, transaction_id, line_number"
NOON = "2026-03-01 12:00"


@dataclass
class Shop:
    """A database of receipt lines with the settings of a lake that takes them in."""

    address: str
    settings: Settings

    @property
    def lake(self) -> Lakehouse:
        return Lakehouse(self.settings)

    def execute(self, statement: str, *parameters: Any) -> None:
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(statement, parameters or None)

    def sell(self, receipt: str, *, posted_at: str = NOON, lines: int = 1, quantity: float = 1) -> None:
        self.execute(
            f"INSERT INTO lines ({COLUMNS}, posted_at) SELECT '2026-03-01', 'S1', 'MILK', %s, %s, n, %s "
            "FROM generate_series(1, %s) AS n",
            quantity,
            receipt,
            posted_at,
            lines,
        )

    def with_source(self, **changes: Any) -> "Shop":
        source = self.settings.sources["tills"].model_copy(update=changes)
        return Shop(self.address, self.settings.model_copy(update={"sources": {"tills": source}}))

    def bring_in(self) -> SourceReport:
        result, (report,) = bring_in(self.lake, "pos_sales", "test")
        assert result.broken == []
        return report

    def in_source(self) -> Counter[tuple[str, ...]]:
        with psycopg.connect(self.address) as connection:
            text = ", ".join(f"{name}::text" for name in COLUMNS.split(", "))
            return Counter(connection.execute(f"SELECT {text} FROM lines WHERE posted_at IS NOT NULL").fetchall())

    def in_raw(self) -> Counter[tuple[str, ...]]:
        return Counter(self.lake.read("raw.pos_sales", columns=COLUMNS.split(", ")).rows())


def shop_on(server: PostgresServer, home: Path) -> Shop:
    address = server.new_database(f"shop_{uuid4().hex}")
    source = PostgresSource(
        kind="postgres",
        feed="pos_sales",
        address=f"postgresql://{USER}@127.0.0.1:{server.port}/{address.rsplit('/', 1)[1]}",
        password_variable="TILLS_PASSWORD",  # noqa: S106
        table="public.lines",
        cursor="posted_at",
        look_back=1,
        first_wait_seconds=0.05,
        longest_wait_seconds=0.2,
    )
    lake = LakeSettings(memory_limit="1GB", lock_timeout_seconds=60)
    shop = Shop(
        address, Settings(home=home, lake=lake, intake=IntakeSettings(quiet_seconds=0), sources={"tills": source})
    )
    shop.execute(
        "CREATE TABLE lines (business_date date, store_id text, item_id text, quantity numeric, transaction_id text, "
        "line_number int, posted_at timestamp)"
    )
    shop.execute("CREATE INDEX ON lines (posted_at)")
    shop.lake.prepare()
    return shop


@pytest.fixture
def shop(postgres_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setenv("TILLS_PASSWORD", PASSWORD)
    return shop_on(postgres_server, tmp_path / "home")


def test_each_extract_takes_what_is_new_or_changed_and_nothing_twice(shop: Shop) -> None:
    shop.sell("R1", lines=3)
    first = shop.bring_in()
    assert (first.rows, first.files, first.problem) == (3, 1, None)
    assert (shop.bring_in().rows, shop.bring_in().files) == (0, 0)
    shop.sell("R2", posted_at="2026-03-01 13:00", lines=2)
    assert shop.bring_in().rows == 2
    assert shop.in_raw() == shop.in_source()
    ledger = shop.lake.read("raw.ingested_files").sort("ingested_at")
    assert ledger.select("source", "extracted_after", "extracted_to").rows() == [
        ("tills", None, "2026-03-01 12:00:00"),
        ("tills", "2026-03-01 12:00:00", "2026-03-01 13:00:00"),
    ]
    shop.execute("UPDATE lines SET quantity = 7 WHERE transaction_id = 'R1' AND line_number = 2")
    assert shop.bring_in().rows == 1
    newest = shop.lake.read("raw.pos_sales").sort("ingested_at")[-1]
    assert newest.select("transaction_id", "line_number", "quantity").row(0) == ("R1", "2", "7")


def test_late_rows_within_the_look_back_come_and_equal_rows_are_counted(shop: Shop) -> None:
    shop.sell("R1", lines=1)
    shop.sell("R1", posted_at="2026-03-01 11:00", lines=1)
    shop.sell("R9", posted_at="2026-03-01 14:00")
    assert shop.bring_in().rows == 3
    # A third purchase that looks like the first two, and one at the very position that had been reached.
    shop.sell("R1", posted_at="2026-03-01 11:30", lines=1)
    shop.sell("R10", posted_at="2026-03-01 14:00")
    assert shop.bring_in().rows == 2
    assert shop.in_raw() == shop.in_source()
    shop.sell("R0", posted_at="2026-02-01 00:00")
    shop.sell("R11", posted_at="2026-03-03 00:00")
    shop.bring_in()
    shop.sell("R2", posted_at="2026-03-01 00:00")
    assert shop.bring_in().rows == 0, "what comes later than the look-back is the price of it"


def test_an_extract_larger_than_a_file_is_cut_where_the_cursor_moves_on(shop: Shop) -> None:
    for hour in range(6):
        shop.sell(f"R{hour}", posted_at=f"2026-03-01 {hour:02}:00", lines=25)
    small = shop.with_source(rows_per_file=40)
    report = small.bring_in()
    assert (report.rows, report.files) == (150, 3)
    assert small.in_raw() == small.in_source()
    shop.sell("R2", posted_at="2026-03-01 02:00", lines=2)
    assert small.bring_in().rows == 2
    assert small.in_raw() == small.in_source()


def test_rows_of_the_future_and_without_cursor_are_left_and_said_so(shop: Shop) -> None:
    shop.sell("R1")
    shop.sell("R2", posted_at="2099-01-01 00:00")
    shop.execute("INSERT INTO lines (business_date, posted_at) VALUES ('2026-03-01', NULL), ('2026-03-01', 'infinity')")
    report = shop.bring_in()
    assert report.rows == 1
    assert report.notes == (
        "1 rows have no posted_at and were not taken",
        "2 rows have a posted_at that lies in the future and were left until then",
    )
    shop.sell("R3", posted_at="2026-03-01 13:00")
    assert shop.bring_in().rows == 1, "the year 2099 did not carry the position away"


def test_a_query_with_other_names_and_a_per_cent_sign_is_read_and_times_by_the_feed_s_clock(shop: Shop) -> None:
    shop.execute("ALTER TABLE lines ADD COLUMN sold timestamptz")
    shop.sell("R1%")
    shop.sell("S1")
    shop.execute("UPDATE lines SET sold = '2026-03-01 23:30+00'")
    feeds = {"pos_sales": FeedSettings(time_zone="Europe/Berlin", columns={"store_id": "of_files_only"})}
    query = "SELECT *, store_id AS shop FROM lines WHERE transaction_id LIKE 'R1%' ;"
    other = shop.with_source(table=None, query=query, columns={"store_id": "shop", "sold_at": "sold"})
    other.settings = other.settings.model_copy(update={"feeds": feeds})
    assert other.bring_in().problem is None
    assert other.bring_in().rows == 0
    rows = other.lake.read("raw.pos_sales", columns=["transaction_id", "store_id", "sold_at"]).rows()
    assert rows == [("R1%", "S1", "2026-03-02 00:30:00")]


def test_what_does_not_fit_is_named_all_at_once_and_nothing_is_taken(shop: Shop) -> None:
    shop.sell("R1")
    shop.execute("ALTER TABLE lines RENAME COLUMN quantity TO units")
    shop.execute("ALTER TABLE lines DROP COLUMN line_number, ADD COLUMN sold_at timestamptz")
    wrong = shop.with_source(cursor="store_id", columns={"sales_amount": "amount"})
    problem = wrong.bring_in().problem
    assert problem is not None
    for words in (
        "column quantity is missing, which the feed pos_sales needs as quantity",
        "columns.sales_amount names amount, which is missing",
        "column sold_at has times with a zone",
        "the cursor column store_id is of the type text",
        "receipts (transaction_id) need their line_number",
        "Mend [sources.tills] in retail.toml",
    ):
        assert words in problem
    assert wrong.lake.read("raw.ingested_files").is_empty()


def test_a_wrong_password_a_missing_variable_and_a_missing_table_end_with_a_sentence(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the database refused to read" in str(shop.with_source(table="nowhere").bring_in().problem)
    assert probe(shop.settings, "tills") == "6 columns of pos_sales, by posted_at"
    monkeypatch.setenv("TILLS_PASSWORD", "wr0ng-secret")
    with pytest.raises(SourceError, match=r"the connection to .* failed") as wrong:
        probe(shop.settings, "tills")
    assert "wr0ng-secret" not in str(wrong.value)
    monkeypatch.delenv("TILLS_PASSWORD")
    with pytest.raises(SourceError, match="TILLS_PASSWORD is not set"):
        probe(shop.settings, "tills")


def test_an_extract_that_cannot_be_taken_in_holds_back_the_next_one(shop: Shop) -> None:
    shop.sell("R1")
    folder = shop.settings.landing / "pos_sales"
    folder.mkdir(parents=True)
    broken = folder / "extract-tills-20260301T000000000000-00001.parquet"
    broken.write_bytes(b"broken")
    result, (report,) = bring_in(shop.lake, "pos_sales", "test")
    assert result.broken
    assert "nothing further is extracted" in str(report.problem)
    assert shop.in_raw() == Counter()
    broken.unlink()
    assert shop.bring_in().rows == 1


def test_what_was_landed_before_a_crash_is_taken_in_before_the_next_extract(shop: Shop) -> None:
    for hour in range(4):
        shop.sell(f"R{hour}", posted_at=f"2026-03-01 {hour:02}:00", lines=25)
    small = shop.with_source(rows_per_file=25)
    held = extraction.taken_in(small.lake, "pos_sales", "tills")
    extraction._extract(small.lake, "tills", small.settings.sources["tills"], held)
    landed = sorted((small.settings.landing / "pos_sales").iterdir())
    assert len(landed) == 4
    # The process died after it had landed two of them.
    for file in landed[2:]:
        file.unlink()
    assert small.bring_in().rows == 50, "the rest; the two files had been taken in first"
    assert small.in_raw() == small.in_source()


@pytest.fixture(scope="module")
def killable() -> Iterator[Any]:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.fail("no PostgreSQL server found") if os.environ.get("CI") else pytest.skip("no PostgreSQL server found")
    with killable_postgres(binaries) as server:
        yield server


def test_a_server_killed_during_extracts_and_started_again_loses_and_doubles_nothing(
    killable: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILLS_PASSWORD", PASSWORD)
    shop = shop_on(killable.server, tmp_path / "home").with_source(rows_per_file=2_000, attempts=60)
    shop.execute(
        f"INSERT INTO lines ({COLUMNS}, posted_at) SELECT '2026-03-01', 'S' || n % 7, 'I' || n % 300, n % 5, n::text, 1, "
        "timestamp '2026-03-01' + n * interval '1 second' FROM generate_series(1, 12000) AS n"
    )
    folder = shop.settings.landing / "pos_sales"
    kills: list[int] = []

    def kill_when(files: int) -> None:
        deadline = time.monotonic() + 60
        while len(list(folder.glob("extract-*"))) < files and time.monotonic() < deadline:
            time.sleep(0.002)
        killable.kill()
        kills.append(len(list(folder.glob("extract-*"))))
        killable.start_again()

    def kill_twice() -> None:
        kill_when(1)
        kill_when(3)

    killer = threading.Thread(target=kill_twice)
    killer.start()
    report = shop.bring_in()
    killer.join()
    assert kills[0] < 6, "the server was killed in the middle"
    assert report.problem is None
    assert shop.in_raw() == shop.in_source()
    assert shop.bring_in().rows == 0


def test_a_server_that_stays_away_fails_the_source_after_its_attempts_and_not_the_files(
    shop: Shop, tmp_path: Path
) -> None:
    away = shop.with_source(address=f"postgresql://{USER}@127.0.0.1:1/shop", attempts=2)
    folder = away.settings.landing / "pos_sales"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("business_date,store_id,item_id,quantity\n2026-03-01,S1,MILK,1\n")
    result, (report,) = bring_in(away.lake, "pos_sales", "test")
    assert isinstance(result, Ingestion)
    assert result.rows == 1
    assert "the connection to 127.0.0.1/shop failed" in str(report.problem)
    assert not report.stale, "a till database is required"
