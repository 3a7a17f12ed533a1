"""What the lakehouse relies on in DuckDB and DuckLake, each pinned with the decision that rests on it.

A test that fails after an upgrade says which decision may be taken again.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl
import pytest

from retail_platform.lakehouse.connection import extension_file, in_memory, is_conflict, text
from retail_platform_tests.postgres import PostgresServer

EXTENSIONS = ("ducklake", "sqlite_scanner", "postgres_scanner", "httpfs")


@contextmanager
def plain_ducklake(folder: Path, postgres: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckLake as it comes, without any of the lakehouse's guards; on SQLite unless given a PostgreSQL address."""
    catalog = f"postgres:{postgres}" if postgres else f"sqlite:{folder}/catalog.sqlite"
    journal = "" if postgres else ", META_JOURNAL_MODE 'WAL'"
    with in_memory() as connection:
        for extension in EXTENSIONS:
            connection.execute(f"LOAD {text(str(extension_file(extension)))}")
        connection.execute(
            f"ATTACH {text(f'ducklake:{catalog}')} AS lake "
            f"(DATA_PATH '{folder}/data/', DATA_INLINING_ROW_LIMIT 0{journal})"
        )
        connection.execute("USE lake")
        yield connection


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_extension_binary_of_this_duckdb_is_in_its_wheel_and_loads_without_a_network(extension: str) -> None:
    """Decision: duckdb is pinned to one version, and nothing is downloaded at run time."""
    assert duckdb.__version__ == "1.5.5"
    with in_memory() as connection:
        connection.execute("SET autoinstall_known_extensions = false")
        connection.execute(f"LOAD {text(str(extension_file(extension)))}")
        loaded = connection.execute("SELECT extension_name FROM duckdb_extensions() WHERE loaded").fetchall()
    assert (extension,) in loaded


def test_unsigned_extensions_can_be_forbidden_after_loading_and_not_allowed_again() -> None:
    """Decision: the extension binaries are loaded without checking their signatures, which takes 0.3 s."""
    with in_memory() as connection:
        connection.execute("SET allow_unsigned_extensions = false")
        with pytest.raises(duckdb.Error, match="allow_unsigned_extensions"):
            connection.execute("SET allow_unsigned_extensions = true")


def test_the_extension_binaries_carry_a_valid_signature() -> None:
    """Decision: as above; that the signatures are good is checked here instead of at every connection."""
    with duckdb.connect() as connection:
        for extension in EXTENSIONS:
            connection.execute(f"LOAD {text(str(extension_file(extension)))}")


def test_a_confined_connection_loads_no_further_extension() -> None:
    """Decision: queries of users run with external access off and the configuration locked."""
    with in_memory() as connection:
        connection.execute("SET enable_external_access = false")
        with pytest.raises(duckdb.Error, match="disabled"):
            connection.execute(f"LOAD {text(str(extension_file('ducklake')))}")


def test_ducklake_has_no_unique_constraint(tmp_path: Path) -> None:
    """Decision: replacing slices under a lock is what keeps rows single."""
    with plain_ducklake(tmp_path) as connection, pytest.raises(duckdb.Error, match="not supported"):
        connection.execute("CREATE TABLE sales (day DATE PRIMARY KEY)")


def test_two_first_time_replacements_of_one_slice_both_commit_and_double_it(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """Decision: a writer holds a lock per table; a snapshot does not see what another first writer inserts."""
    address = postgres_server.new_database("double_slice")
    with plain_ducklake(tmp_path, address) as first, plain_ducklake(tmp_path, address) as second:
        replace_slice_in_both(first, second)
        second.execute("COMMIT")
        assert first.execute("SELECT count(*) FROM sales").fetchone() == (40,)


def test_a_second_committer_on_sqlite_is_told_that_the_database_is_locked(tmp_path: Path) -> None:
    """Decision: the lakehouse tries a commit again itself; DuckLake's own retries do not help on SQLite."""
    with plain_ducklake(tmp_path) as first, plain_ducklake(tmp_path) as second:
        replace_slice_in_both(first, second)
        with pytest.raises(duckdb.Error, match="database is locked") as refused:
            second.execute("COMMIT")
        assert is_conflict(refused.value)
        assert first.execute("SELECT count(*) FROM sales").fetchone() == (20,)


def replace_slice_in_both(first: duckdb.DuckDBPyConnection, second: duckdb.DuckDBPyConnection) -> None:
    """Two transactions replace a slice that does not exist yet; the first one has committed."""
    first.execute("CREATE TABLE sales (day DATE, units INTEGER)")
    for writer in (first, second):
        writer.execute("BEGIN")
        writer.execute("DELETE FROM sales WHERE day = DATE '2017-03-06'")
        writer.execute("INSERT INTO sales SELECT DATE '2017-03-06', i FROM range(20) AS numbers(i)")
    first.execute("COMMIT")


def test_insert_goes_by_position_unless_told_to_go_by_name(tmp_path: Path) -> None:
    """Decision: the lakehouse inserts BY NAME; by position, reordered columns of one type swap silently."""
    with plain_ducklake(tmp_path) as connection:
        connection.execute("CREATE TABLE sales (quantity DOUBLE, amount DOUBLE)")
        connection.execute("INSERT INTO sales SELECT 9.5 AS amount, 2.0 AS quantity")
        connection.execute("INSERT INTO sales BY NAME SELECT 9.5 AS amount, 2.0 AS quantity")
        assert connection.execute("FROM sales").fetchall() == [(9.5, 2.0), (2.0, 9.5)]


def test_insert_by_name_casts_and_rounds_silently(tmp_path: Path) -> None:
    """Decision: the lakehouse compares the types of queries and streams with the contract itself."""
    with plain_ducklake(tmp_path) as connection:
        connection.execute("CREATE TABLE sales (units BIGINT)")
        connection.execute("INSERT INTO sales BY NAME SELECT 1.6::DOUBLE AS units")
        assert connection.execute("FROM sales").fetchall() == [(2,)]


def test_a_row_that_a_transaction_deleted_is_gone_for_its_own_queries(tmp_path: Path) -> None:
    """Decision: a query may not replace the table that it reads."""
    with plain_ducklake(tmp_path) as connection:
        connection.execute("CREATE TABLE sales AS SELECT 1 AS units")
        connection.execute("BEGIN")
        connection.execute("DELETE FROM sales")
        connection.execute("INSERT INTO sales SELECT units FROM sales")
        connection.execute("COMMIT")
        assert connection.execute("FROM sales").fetchall() == []


def test_a_rolled_back_write_that_failed_leaves_its_file(tmp_path: Path) -> None:
    """Decision: the lakehouse removes the unfinished file of a failed write itself."""
    with plain_ducklake(tmp_path) as connection:
        connection.execute("CREATE TABLE sales (units BIGINT)")
        connection.execute("BEGIN")
        with pytest.raises(duckdb.Error, match="broke"):
            connection.execute(
                "INSERT INTO sales SELECT CASE WHEN i < 900_000 THEN i ELSE error('the source broke') END "
                "FROM range(1_000_000) AS numbers(i)"
            )
        connection.execute("ROLLBACK")
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def three_days(connection: duckdb.DuckDBPyConnection) -> None:
    """A table of one file a day; its snapshots are 1 to 4."""
    connection.execute("CREATE TABLE sales (day DATE, units INTEGER)")
    for day in (6, 7, 8):
        connection.execute(f"INSERT INTO sales SELECT DATE '2017-03-0{day}', i FROM range(10) AS numbers(i)")


def test_merging_in_a_transaction_commits_with_it_and_keeps_every_snapshot(tmp_path: Path) -> None:
    """Decision: maintenance merges in a transaction, so that new files are on disk before the catalog names them."""
    with plain_ducklake(tmp_path) as connection:
        three_days(connection)
        connection.execute("BEGIN")
        assert connection.execute("CALL ducklake_merge_adjacent_files('lake', 'sales')").fetchall()[0][2:] == (3, 1)
        connection.execute("ROLLBACK")
        assert len(connection.execute("FROM ducklake_list_files('lake', 'sales')").fetchall()) == 3
        connection.execute("CALL ducklake_merge_adjacent_files('lake', 'sales')")
        assert len(connection.execute("FROM ducklake_list_files('lake', 'sales')").fetchall()) == 1
        at = [connection.execute(f"SELECT count(*) FROM sales AT (VERSION => {v})").fetchone() for v in (2, 3, 4)]
        assert at == [(10,), (20,), (30,)]


def test_a_file_with_deleted_rows_is_not_merged_until_it_is_rewritten(tmp_path: Path) -> None:
    """Decision: maintenance rewrites first, from a fifth of deleted rows on; DuckLake's own threshold is 95 %."""
    with plain_ducklake(tmp_path) as connection:
        three_days(connection)
        connection.execute("DELETE FROM sales WHERE units < 3")
        rewrite = "CALL ducklake_rewrite_data_files('lake', 'sales'"
        assert connection.execute("CALL ducklake_merge_adjacent_files('lake', 'sales')").fetchall() == []
        assert connection.execute(f"{rewrite})").fetchall() == []
        assert [row[2] for row in connection.execute(f"{rewrite}, delete_threshold => 0.2)").fetchall()] == [3]


@pytest.mark.parametrize(("catalog", "isolated"), [("sqlite", False), ("postgres", True)])
def test_a_transaction_beside_a_merge_loses_its_snapshot_on_sqlite_alone(
    tmp_path: Path, request: pytest.FixtureRequest, catalog: str, *, isolated: bool
) -> None:
    """Decision: on SQLite a read during which files were merged is asked again, and no two statements of a reader
    share a transaction."""
    server = request.getfixturevalue("postgres_server") if catalog == "postgres" else None
    address = server.new_database("merge_beside_reader") if server else None
    with plain_ducklake(tmp_path, address) as writer, plain_ducklake(tmp_path, address) as reader:
        three_days(writer)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM sales").fetchone() == (30,)
        writer.execute("INSERT INTO sales VALUES (DATE '2017-03-09', 1)")
        writer.execute("CALL ducklake_merge_adjacent_files('lake', 'sales')")
        assert (reader.execute("SELECT count(*) FROM sales").fetchone() == (30,)) is isolated
        reader.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM sales").fetchone() == (31,)


def test_a_time_without_a_snapshot_of_its_own_shows_the_one_before_even_if_others_have_expired(tmp_path: Path) -> None:
    """Decision: the lakehouse looks up the snapshot of a time itself, and refuses where one between has expired."""
    with plain_ducklake(tmp_path) as connection:
        three_days(connection)
        third = connection.execute(
            "SELECT snapshot_time FROM ducklake_snapshots('lake') WHERE snapshot_id = 3"
        ).fetchone()
        assert third is not None
        connection.execute("CALL ducklake_expire_snapshots('lake', versions => [3])")
        sql = "SELECT count(*) FROM sales AT (TIMESTAMP => ?::TIMESTAMPTZ)"
        assert connection.execute(sql, [third[0]]).fetchone() == (10,)


def test_the_cleanup_of_old_files_passes_over_one_that_is_gone(tmp_path: Path) -> None:
    """Decision: maintenance lets DuckLake remove the files; one that a killed maintenance had removed stops nothing."""
    with plain_ducklake(tmp_path) as connection:
        three_days(connection)
        connection.execute("CALL ducklake_merge_adjacent_files('lake', 'sales')")
        min((tmp_path / "data").rglob("*.parquet")).unlink()
        connection.execute("CALL ducklake_cleanup_old_files('lake', cleanup_all => true)")
        assert len(list((tmp_path / "data").rglob("*.parquet"))) == 1
        assert connection.execute("SELECT count(*) FROM sales").fetchone() == (30,)


def test_the_removal_of_orphans_takes_the_files_of_a_write_that_is_under_way(tmp_path: Path) -> None:
    """Decision: maintenance finds orphans itself, takes old ones only, and runs beside no writer."""
    with plain_ducklake(tmp_path) as writer, plain_ducklake(tmp_path) as maintenance:
        writer.execute("CREATE TABLE sales (units INTEGER)")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO sales SELECT i FROM range(100) AS numbers(i)")
        maintenance.execute("CALL ducklake_delete_orphaned_files('lake', cleanup_all => true)")
        writer.execute("COMMIT")
        with pytest.raises(duckdb.Error, match=r"Cannot open file|No such file"):
            maintenance.execute("SELECT sum(units) FROM sales").fetchall()


@pytest.mark.parametrize("catalog", ["sqlite", "postgres"])
def test_an_added_file_is_the_tables_own_from_the_transaction_on_and_is_left_by_a_rollback(
    tmp_path: Path, request: pytest.FixtureRequest, catalog: str
) -> None:
    """Decision: large landing files become files of the raw table as they are; a failed commit removes them itself."""
    server = request.getfixturevalue("postgres_server") if catalog == "postgres" else None
    address = server.new_database("added_file") if server else None
    file = tmp_path / "data" / "main" / "sales" / "ours.parquet"
    add = "CALL ducklake_add_data_files('lake', 'sales', ?, schema => 'main', allow_missing => true)"
    with plain_ducklake(tmp_path, address) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE sales (units INTEGER)")
        file.parent.mkdir(parents=True)
        connection.execute(f"COPY (SELECT i::INTEGER AS units FROM range(3) AS numbers(i)) TO '{file}'")
        connection.execute(add, [str(file)])
        assert connection.execute("SELECT count(*) FROM sales").fetchone() == (3,)
        connection.execute("ROLLBACK")
        assert file.is_file()
        connection.execute("CREATE TABLE sales (units INTEGER)")
        connection.execute("BEGIN")
        connection.execute("ALTER TABLE sales ADD COLUMN store VARCHAR")
        connection.execute(add, [str(file)])
        connection.execute("COMMIT")
        assert connection.execute("FROM sales").fetchall() == [(0, None), (1, None), (2, None)]
        path = "SELECT path, path_is_relative FROM __ducklake_metadata_lake.ducklake_data_file"
        assert [bool(relative) for _, relative in connection.execute(path).fetchall()] == [True]


def test_a_file_is_added_twice_and_without_required_values_and_nothing_is_said(tmp_path: Path) -> None:
    """Decision: the lakehouse gives every file a name of its own, and looks for missing values in its footer."""
    file = tmp_path / "ours.parquet"
    with plain_ducklake(tmp_path) as connection:
        connection.execute("CREATE TABLE sales (units INTEGER NOT NULL)")
        connection.execute(f"COPY (SELECT NULL::INTEGER AS units) TO '{file}'")
        for _ in range(2):
            connection.execute("CALL ducklake_add_data_files('lake', 'sales', ?)", [str(file)])
        assert connection.execute("SELECT count(*) FROM sales WHERE units IS NULL").fetchone() == (2,)


def test_a_search_by_statistics_passes_over_a_nan_in_an_added_file(tmp_path: Path) -> None:
    """Decision: rows with a NaN are written by DuckDB, which notes it in the catalog."""
    file = tmp_path / "ours.parquet"
    with plain_ducklake(tmp_path) as connection:
        connection.execute("CREATE TABLE sales (share DOUBLE)")
        pl.DataFrame({"share": [1.0, float("nan")]}).write_parquet(file)
        connection.execute("CALL ducklake_add_data_files('lake', 'sales', ?)", [str(file)])
        assert connection.execute("SELECT count(*) FROM sales WHERE share > 5").fetchone() == (0,)
        connection.execute("INSERT INTO sales VALUES ('nan'), (2)")
        assert connection.execute("SELECT count(*) FROM sales WHERE share > 5").fetchone() == (1,)


def test_duckdb_does_not_force_its_parquet_files_to_disk(tmp_path: Path) -> None:
    """Decision: the lakehouse fsyncs new files and their folders before the commit."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed; it alone can see the system calls of DuckDB")
    script = (
        f"import duckdb; duckdb.execute(\"COPY (SELECT 1 AS units) TO '{tmp_path}/sales.parquet' (FORMAT parquet)\")"
    )
    trace = tmp_path / "trace"
    subprocess.run(
        [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,openat", "-o", trace, sys.executable, "-c", script],
        check=True,
    )
    calls = [line for line in trace.read_text().splitlines() if "sales.parquet" in line]
    assert any("openat" in call for call in calls)
    assert not any("sync(" in call for call in calls)
