"""What the platform needs of this machine, and whether it is there. It reads and tries, and changes nothing."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retail_platform.settings import Settings

PACKAGES = ("dagster", "dagster-webserver", "dagster-duckdb", "duckdb", "polars", "pandera", "lightgbm", "evidently")


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `remedy` says what to do where it is not fine."""

    what: str
    fine: bool
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything, and let no failure hide another."""
    looks: tuple[Callable[[], list[Finding]], ...] = (_python, _packages, _lightgbm, _extensions, _settings)
    return [finding for look in looks for finding in look()]


def _python() -> list[Finding]:
    fine = (3, 11) <= sys.version_info[:2] < (3, 14)
    return [Finding("Python", fine, sys.version.split()[0], "use Python 3.11, 3.12 or 3.13")]


def _packages() -> list[Finding]:
    findings = []
    for name in PACKAGES:
        try:
            findings.append(Finding(f"package {name}", fine=True, found=version(name)))
        except PackageNotFoundError:
            findings.append(Finding(f"package {name}", fine=False, found="missing", remedy=f"pip install {name}"))
    return findings


def _lightgbm() -> list[Finding]:
    try:
        import lightgbm
    except OSError as error:
        remedy = "install the OpenMP library, on Debian and Ubuntu: apt-get install libgomp1"
        return [Finding("LightGBM's native library", fine=False, found=str(error), remedy=remedy)]
    return [Finding("LightGBM's native library", fine=True, found=lightgbm.__version__)]


def _extensions() -> list[Finding]:
    from retail_platform.lakehouse.connection import LakeError, extension_file

    findings = []
    for name in ("ducklake", "sqlite_scanner", "postgres_scanner", "httpfs"):
        try:
            findings.append(Finding(f"DuckDB extension {name}", fine=True, found=extension_file(name).name))
        except LakeError as error:
            findings.append(Finding(f"DuckDB extension {name}", fine=False, found="missing", remedy=str(error)))
    return findings


def _settings() -> list[Finding]:
    from retail_platform.settings import SettingsError, configuration_file, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        return [Finding("settings", fine=False, found=str(configuration_file()), remedy=str(error))]
    place = configuration_file()
    found = str(place) if place.is_file() else "defaults"
    findings = [Finding("settings", fine=True, found=found), _writable(settings.home), *_landing_zone(settings)]
    if settings.on_object_storage:
        findings.append(_object_storage(settings))
    if settings.catalog == "sqlite" and not settings.catalog_file.is_file():
        remedy = "fill it with `retail-platform demo`, or drop files into the landing zone and `retail-platform run`"
        return [
            *findings,
            *_sources(settings),
            Finding("lake", fine=True, found=f"none yet at {settings.home}", remedy=remedy),
        ]
    return [*findings, *_sources(settings), _lake()]


def _landing_zone(settings: "Settings") -> list[Finding]:
    from retail_platform.sources.files import of_no_feed

    return [
        Finding("landing zone", fine=False, found=words, remedy="move it into the folder of its feed, or away")
        for words in of_no_feed(settings.landing)
    ]


def _sources(settings: "Settings") -> list[Finding]:
    if not settings.sources:
        return []
    from retail_platform.orchestration.extraction import probe
    from retail_platform.sources.extracts import SourceError

    findings = []
    for name in settings.sources:
        try:
            findings.append(Finding(f"source {name}", fine=True, found=probe(settings, name)))
        except SourceError as error:
            findings.append(
                Finding(f"source {name}", fine=False, found="does not answer as it should", remedy=str(error))
            )
    return findings


def _writable(home: Path) -> Finding:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with NamedTemporaryFile(dir=place):
            return Finding("home folder", fine=True, found=str(home))
    except OSError as error:
        remedy = "give this user the right to write there, or set RETAIL_HOME to another folder"
        return Finding("home folder", fine=False, found=f"{home}: {error.strerror}", remedy=remedy)


def _object_storage(settings: "Settings") -> Finding:
    from retail_platform.lakehouse import LakeError
    from retail_platform.lakehouse.storage import DataFiles

    try:
        DataFiles(settings).refuse_silence()
    except LakeError as error:
        remedy = "check lake.data, lake.s3_endpoint, lake.s3_region, lake.s3_url_style and the credentials"
        return Finding("object storage", fine=False, found=str(error), remedy=remedy)
    return Finding("object storage", fine=True, found=settings.data_location)


def _lake() -> Finding:
    from retail_platform.lakehouse import LakeError, Lakehouse
    from retail_platform.lakehouse.connection import NoLakeError
    from retail_platform.settings import load_settings

    try:
        return Finding("lake", fine=True, found=f"snapshot {Lakehouse(load_settings()).snapshot_id()}")
    except NoLakeError as error:
        return Finding("lake", fine=True, found="none yet", remedy=str(error))
    except LakeError as error:
        return Finding("lake", fine=False, found="not reachable", remedy=str(error))
