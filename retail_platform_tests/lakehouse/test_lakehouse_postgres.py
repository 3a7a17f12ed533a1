"""What is peculiar to a catalog in PostgreSQL."""

from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from retail_platform.lakehouse import Append, LakeError, Lakehouse, ReplaceTable
from retail_platform.lakehouse.backup import back_up, restore
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, sales
from retail_platform_tests.postgres import PASSWORD, PostgresServer


def texts_of(error: BaseException | None) -> str:
    """The message of an error and of every error behind it, as a traceback shows them."""
    return "" if error is None else f"{error} {texts_of(error.__cause__)} {texts_of(error.__context__)}"


@pytest.mark.parametrize("action", ["read", "commit", "prepare"])
def test_a_catalog_that_cannot_be_reached_is_named_without_its_password(
    postgres_server: PostgresServer, settings: Settings, action: str
) -> None:
    lake = Lakehouse(settings.model_copy(update={"catalog": postgres_server.address("no_such_database")}))
    actions = {
        "read": lambda: lake.read("shop.sales"),
        "commit": lambda: lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY),
        "prepare": lake.prepare,
    }

    with pytest.raises(LakeError, match='database "no_such_database" does not exist') as refused:
        actions[action]()
    assert PASSWORD not in texts_of(refused.value)
    assert PASSWORD.split("/")[0] not in texts_of(refused.value)


def test_the_password_may_come_from_the_environment_of_the_driver(
    postgres_server: PostgresServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = postgres_server.new_database("without_a_password")
    given = f":{urlsplit(address).password}@"
    assert given in address
    lake = Lakehouse(settings.model_copy(update={"catalog": address.replace(given, "@")}))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    assert lake.read("shop.sales").height == 1


def test_an_address_that_cannot_be_read_is_refused_without_repeating_it(settings: Settings) -> None:
    lake = Lakehouse(settings.model_copy(update={"catalog": "postgresql://retail:s3cret%zz@host/lake"}))

    with pytest.raises(LakeError, match="percent-encoded") as refused:
        lake.read("shop.sales")
    assert "s3cret" not in str(refused.value)


def test_the_password_cannot_be_read_with_sql(postgres_server: PostgresServer, settings: Settings) -> None:
    lake = Lakehouse(settings.model_copy(update={"catalog": postgres_server.new_database("password_in_sql")}))
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)

    for source in ("duckdb_databases()", "duckdb_secrets()", "duckdb_settings()", "ducklake_options('lake')"):
        shown = str(lake.query(f"SELECT * FROM {source}").rows())
        assert "s3cret" not in shown, source


def test_two_homes_can_share_one_catalog_only_with_the_same_data_folder(
    postgres_server: PostgresServer, settings: Settings, tmp_path: Path
) -> None:
    shared = settings.model_copy(update={"catalog": postgres_server.new_database("two_homes")})
    Lakehouse(shared).commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)

    with pytest.raises(LakeError, match="DATA_PATH"):
        Lakehouse(shared.model_copy(update={"home": tmp_path / "elsewhere"})).read("shop.sales")


def test_who_lost_the_connection_reads_and_commits_again(postgres_server: PostgresServer, settings: Settings) -> None:
    address = postgres_server.new_database("cut_connections")
    lake = Lakehouse(settings.model_copy(update={"catalog": address}))
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    assert lake.read("shop.sales").height == 1

    _cut_connections(postgres_server, "cut_connections")
    assert lake.read("shop.sales").height == 1
    lake.commit([Append(SALES, sales(MONDAY, 2))], BY)

    _cut_connections(postgres_server, "cut_connections")
    lake.commit([Append(SALES, sales(MONDAY, 3))], BY)
    assert sorted(lake.read("shop.sales")["units"]) == [1, 2, 3]


def _cut_connections(server: PostgresServer, database: str) -> None:
    with psycopg.connect(server.address("postgres"), autocommit=True) as connection:
        cut = connection.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s", [database]
        ).fetchone()
    assert cut is not None
    assert cut[0] > 0


def test_no_lock_outlives_its_commit_although_the_session_does(
    postgres_server: PostgresServer, settings: Settings
) -> None:
    address = postgres_server.new_database("given_back")
    lake = Lakehouse(settings.model_copy(update={"catalog": address}))
    with psycopg.connect(address, autocommit=True) as connection:
        for units in (1, 2):
            lake.commit([Append(SALES, sales(MONDAY, units))], BY)
            held = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
            assert held == (0,)


def test_a_lake_at_rest_keeps_no_transaction_open_in_the_catalog(
    postgres_server: PostgresServer, settings: Settings
) -> None:
    address = postgres_server.new_database("at_rest")
    lake = Lakehouse(settings.model_copy(update={"catalog": address}))
    for units in (1, 2):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, units))], BY)
        lake.snapshot_id()
    with psycopg.connect(address) as connection:
        states = connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = 'at_rest' AND pid <> pg_backend_pid() AND state <> ''"
        ).fetchall()
    assert set(states) == {("idle",)}


def test_a_catalog_that_somebody_reads_is_not_set_aside_and_nobody_waits_for_ever(
    postgres_server: PostgresServer, settings: Settings, tmp_path: Path
) -> None:
    address = postgres_server.new_database("read_meanwhile")
    patience = settings.lake.model_copy(update={"lock_timeout_seconds": 0.2})
    lake = Lakehouse(settings.model_copy(update={"catalog": address, "lake": patience}))
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    back_up(lake, tmp_path / "backup")
    with psycopg.connect(address) as reader:
        reader.execute("SELECT * FROM ducklake_snapshot")
        with pytest.raises(LakeError, match="end what is connected to the catalog"):
            restore(lake, tmp_path / "backup", force=True)
    assert lake.read("shop.sales")["units"].to_list() == [1]
