"""Copies of the whole lake, and the lake made of one again.

A backup is one consistent snapshot, taken while others write: first the catalog as of one moment, then the files that
it names, none of which ever changes. The place of the backups holds

    files/                  data files, shared by all backups: one that is there is not copied again
    models/                 model versions, shared in the same way
    backups/<name>/         of each backup its catalog, its manifest with the SHA-256 of every file, and the secrets

Here: making, listing, checking and restoring. Not here: how the catalog is taken out of its database
(`catalog_copy.py`).
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from retail_platform.contracts.table import TABLES
from retail_platform.lakehouse.catalog_copy import catalog_exists, load_catalog, save_catalog, set_catalog_aside
from retail_platform.lakehouse.connection import LAKE, LakeError
from retail_platform.lakehouse.durability import sync_files
from retail_platform.lakehouse.fsck import Finding, files_of_every_snapshot, fsck
from retail_platform.lakehouse.lakehouse import Lakehouse
from retail_platform.lakehouse.locks import MAINTENANCE, table_locks
from retail_platform.lakehouse.storage import DataFiles
from retail_platform.settings import Settings

FORMAT = 1
MANIFEST = "manifest.json"
CATALOG_FILE = "catalog.sqlite"
SECRETS = ("customer.key", "retail.toml")
"""Files of the home that a backup holds too: pseudonyms cannot be made again without the key, and the settings may
hold passwords. Only their owner may read them."""

_SHOWN = 20


@dataclass(frozen=True)
class StoredCopy:
    """A file of a backup."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a backup consists of. Paths are those below `files/`, `models/` and the backup's own folder."""

    format: int
    made_at: str
    snapshot: int
    platform: str
    duckdb: str
    data_location: str
    data: dict[str, StoredCopy] = field(default_factory=dict)
    models: dict[str, StoredCopy] = field(default_factory=dict)
    own: dict[str, StoredCopy] = field(default_factory=dict)


@dataclass(frozen=True)
class Backup:
    """What making a backup did."""

    name: str
    snapshot: int
    files: int
    bytes: int
    files_copied: int
    bytes_copied: int
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class Restored:
    """What a restore put back, and what fsck says of it."""

    name: str
    snapshot: int
    files: int
    bytes: int
    set_aside: str
    findings: tuple[Finding, ...]


def back_up(lake: Lakehouse, destination: Path, *, secrets: bool = True, now: datetime | None = None) -> Backup:
    """Copy the lake as of this moment into a folder that holds backups; writers are not disturbed, maintenance waits.

    What an earlier backup there has is not copied again. Raises `LakeError` where the lake's own files are missing or
    have another size than the catalog says, with every one of them: such a lake is to be mended first.
    """
    settings = lake.settings
    _refuse_place_within(settings, destination)
    lake.snapshot_id()  # where there is no lake, no folder is made either
    moment = now or datetime.now(UTC)
    name = f"{moment:%Y%m%dT%H%M%S}Z"
    own = destination / "backups" / name
    destination.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        own.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        raise LakeError(f"there is a backup {name} at {destination} already; wait a second") from None
    known = _known_copies(destination)
    copies = _Copies()
    with table_locks(settings, [MAINTENANCE]):
        save_catalog(settings, own / CATALOG_FILE)
        catalogued = _catalogued(own / CATALOG_FILE)
        files = DataFiles(settings)
        stored = files.listing()
        _refuse_damaged(
            f"{files.address(path)} {'is missing' if path not in stored else 'has another size than the catalog says'}"
            for path, size in catalogued.items()
            if path not in stored or stored[path].bytes != size
        )
        data = {
            path: copies.copy(partial(files.open, path), destination / "files" / path, known.data.get(path))
            for path in catalogued
        }
        models = {
            path: copies.copy(
                partial((settings.models / path).open, "rb"), destination / "models" / path, known.models.get(path)
            )
            for path in _model_files(settings.models)
        }
    included = [secret for secret in SECRETS if secrets and (settings.home / secret).is_file()]
    for secret in included:
        copies.copy(partial((settings.home / secret).open, "rb"), own / secret, None)
    for file in own.iterdir():
        file.chmod(0o600)
    manifest = Manifest(
        format=FORMAT,
        made_at=moment.isoformat(timespec="seconds"),
        snapshot=_newest_snapshot(own / CATALOG_FILE),
        platform=version("retail-platform"),
        duckdb=duckdb.__version__,
        data_location=settings.data_location,
        data=data,
        models=models,
        own={file: _facts(own / file) for file in (CATALOG_FILE, *included)},
    )
    # The manifest comes last, when all that it names is on disk: a backup that was broken off has none.
    for folder in (destination / "files", destination / "models"):
        folder.mkdir(exist_ok=True)
        sync_files(set(), folder)
    draft = own / f".{MANIFEST}"
    draft.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    sync_files({draft}, own)
    draft.rename(own / MANIFEST)
    sync_files(set(), destination)
    sync_files(set(), own)
    every = [*data.values(), *models.values(), *manifest.own.values()]
    return Backup(
        name, manifest.snapshot, len(every), sum(c.bytes for c in every), copies.files, copies.bytes, tuple(included)
    )


def backups(place: Path) -> list[str]:
    """The names of the finished backups at a place, oldest first."""
    return sorted(file.parent.name for file in place.glob(f"backups/*/{MANIFEST}"))


def verify(place: Path, name: str | None = None) -> tuple[str, Manifest]:
    """Read every file of a backup, the newest unless one is named, and compare it with the manifest.

    Returns the backup's name and manifest. Raises `LakeError` with every file that is missing or altered.
    """
    there = backups(place)
    chosen = name or (there[-1] if there else None)
    if chosen not in there:
        listed = f"there are {', '.join(there)}" if there else "there is none"
        raise LakeError(f"{place} has no finished backup{f' {name}' if name else ''}; {listed}")
    manifest = _read_manifest(place / "backups" / chosen / MANIFEST)
    wrong = []
    for path, (file, copy) in _files_of(place, chosen, manifest).items():
        if not file.is_file():
            wrong.append(f"{path} is missing")
        elif _facts(file) != copy:
            wrong.append(f"{path} is not the file that was copied")
    if wrong:
        shown = "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        raise LakeError(f"backup {chosen} at {place} is damaged: {shown}. Use another one: {', '.join(there)}")
    return chosen, manifest


def restore(lake: Lakehouse, source: Path, *, name: str | None = None, force: bool = False) -> Restored:
    """Make the lake that a backup holds, in a home without one, and examine it.

    The catalog may be of the other kind than the one that was saved, and the data files may lie elsewhere: this is
    also how a lake moves. With `force` a lake that is there is set aside and kept. Nothing is written before every
    file of the backup was verified, and the catalog comes last: a restore that was broken off leaves no lake.
    """
    settings = lake.settings
    chosen, manifest = verify(source, name)
    own = source / "backups" / chosen
    _refuse_existing(settings, own, manifest, force=force)
    set_aside = ""
    with table_locks(settings, [MAINTENANCE, LAKE, *TABLES]):
        if force:
            set_aside = _set_aside(settings)
        files = DataFiles(settings)
        for path in manifest.data:
            with (source / "files" / path).open("rb") as content:
                files.write(path, content)
        if not settings.on_object_storage:
            settings.lake_data.mkdir(parents=True, exist_ok=True)
            sync_files({settings.lake_data / path for path in manifest.data}, settings.lake_data.parent)
        for path in manifest.models:
            _copy_file(source / "models" / path, settings.models / path)
        for secret in SECRETS:
            if secret in manifest.own and not (settings.home / secret).exists():
                _copy_file(own / secret, settings.home / secret, mode=0o600)
        load_catalog(settings, own / CATALOG_FILE)
    every = [*manifest.data.values(), *manifest.models.values(), *manifest.own.values()]
    findings = fsck(Lakehouse(settings))
    size = sum(copy.bytes for copy in every)
    return Restored(chosen, manifest.snapshot, len(every), size, set_aside, tuple(findings))


class _Copies:
    """Copies files that are not there yet, and counts them."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0

    def copy(self, opened: Callable[[], Any], target: Path, known: StoredCopy | None) -> StoredCopy:
        if known is not None and target.is_file() and target.stat().st_size == known.bytes:
            return known
        digest, size = hashlib.sha256(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.part")
        with opened() as source, draft.open("wb") as stream:
            while block := source.read(1 << 20):
                digest.update(block)
                size += stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(target)
        sync_files(set(), target.parent)
        self.files += 1
        self.bytes += size
        return StoredCopy(size, digest.hexdigest())


def _known_copies(place: Path) -> Manifest:
    """What the finished backups at a place hold together."""
    known = Manifest(FORMAT, "", 0, "", "", "")
    for name in backups(place):
        manifest = _read_manifest(place / "backups" / name / MANIFEST)
        known.data.update(manifest.data)
        known.models.update(manifest.models)
    return known


def _read_manifest(file: Path) -> Manifest:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise LakeError(
                f"{file} is of format {content['format']}, this version reads {FORMAT}; see docs/operations.md"
            )
        for part in ("data", "models", "own"):
            content[part] = {_safe(path): StoredCopy(**facts) for path, facts in content[part].items()}
        return Manifest(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LakeError(f"{file} is not the manifest of a backup: {error}") from None


def _safe(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{path!r} leads out of the backup")
    return path


def _files_of(place: Path, name: str, manifest: Manifest) -> dict[str, tuple[Path, StoredCopy]]:
    parts: Mapping[str, dict[str, StoredCopy]] = {
        "files": manifest.data,
        "models": manifest.models,
        f"backups/{name}": manifest.own,
    }
    return {
        f"{folder}/{path}": (place / folder / path, copy)
        for folder, part in parts.items()
        for path, copy in part.items()
    }


def _catalogued(catalog: Path) -> dict[str, int]:
    """The data files and delete files that a saved catalog names, with their sizes."""
    with closing(sqlite3.connect(catalog)) as connection:
        return {path: size for path, _, _, size in connection.execute(files_of_every_snapshot())}


def _newest_snapshot(catalog: Path) -> int:
    with closing(sqlite3.connect(catalog)) as connection:
        (newest,) = connection.execute("SELECT max(snapshot_id) FROM ducklake_snapshot").fetchone()
    return int(newest)


def _model_files(models: Path) -> list[str]:
    files = (file for file in models.glob("*/*") if file.is_file() and not file.parent.name.startswith("."))
    return sorted(str(file.relative_to(models)) for file in files)


def _refuse_damaged(wrong: Iterable[str]) -> None:
    if found := list(wrong):
        raise LakeError(
            f"the lake is damaged, and a backup of it would be: {'; '.join(found[:_SHOWN])}; "
            "`retail-platform lake fsck` lists everything with its remedy"
        )


def _refuse_place_within(settings: Settings, destination: Path) -> None:
    if destination.absolute().is_relative_to(settings.home.absolute()):
        raise LakeError(f"{destination} lies in the home folder itself, and would be lost with it; choose another disk")


def _refuse_existing(settings: Settings, own: Path, manifest: Manifest, *, force: bool) -> None:
    if force:
        return
    if catalog_exists(settings):
        raise LakeError(
            f"there is a lake at {settings.home} or in its catalog already; restore into another RETAIL_HOME, or with "
            "--force, which sets the lake that is there aside and keeps it"
        )
    key = settings.home / "customer.key"
    if "customer.key" in manifest.own and key.is_file() and _facts(key) != _facts(own / "customer.key"):
        raise LakeError(
            f"{key} is another key than the backup's: pseudonyms of the restored lake would not be made again; move it "
            "away, or restore with --force, which sets it aside"
        )


def _set_aside(settings: Settings) -> str:
    """Move the lake, the models and the key that are there into a folder of the home; where that is."""
    folder = settings.home / f"replaced_{datetime.now(UTC):%Y%m%dT%H%M%S}"
    folder.mkdir(parents=True)
    moved = [settings.models, settings.home / "customer.key"]
    if not settings.on_object_storage:
        moved.append(settings.lake_data)
    if catalog_exists(settings):
        set_catalog_aside(settings, folder)
    for path in moved:
        if path.exists():
            path.rename(folder / path.name)
    return str(folder)


def _copy_file(source: Path, target: Path, *, mode: int = 0o644) -> None:
    """The target appears whole and on disk, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    with (
        source.open("rb") as content,
        os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as to,
    ):
        shutil.copyfileobj(content, to)
        to.flush()
        os.fsync(to.fileno())
    draft.rename(target)
    sync_files(set(), target.parent)


def _facts(file: Path) -> StoredCopy:
    with file.open("rb") as content:
        return StoredCopy(file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest())
