"""Where trained models lie: one folder per version, never changed once it is there.

Here: writing a version so that it is whole or absent, and reading it back with every file checked against the
SHA-256 in its manifest. Not here: what the files mean (`forecasting/`), and which version is in use
(`model.registry`, which keeps the SHA-256 of the manifest itself).
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from retail_platform.lakehouse.connection import LakeError
from retail_platform.lakehouse.durability import sync_files

MANIFEST = "manifest.json"

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")


def save_model(folder: Path, version: str, files: Mapping[str, str], manifest: dict[str, Any]) -> str:
    """Write `files` (name -> text) and the manifest to `folder/version` and return the manifest's SHA-256.

    The manifest on disk is `manifest` plus `files`: name -> {sha256, bytes}. The folder appears complete and
    fsynced, or not at all. Saving the same version with the same content again changes nothing. Raises
    `LakeError` where the version exists with other content, or where a name or the manifest cannot be stored.
    """
    _refuse_unusable(folder, version, files, manifest)
    contents = {name: text.encode() for name, text in files.items()}
    listed = {name: {"sha256": _sha256(content), "bytes": len(content)} for name, content in contents.items()}
    try:
        document = json.dumps({**manifest, "files": listed}, indent=2, sort_keys=True, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise LakeError(f"the manifest of model {version} is not plain JSON: {error}") from None
    contents[MANIFEST] = document.encode()

    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(mkdtemp(prefix=f".{version}.", dir=folder))
    try:
        for name, content in contents.items():
            (unfinished / name).write_bytes(content)
        unfinished.chmod(0o755)
        sync_files({unfinished / name for name in contents}, unfinished)
        try:
            unfinished.rename(folder / version)
        except OSError:
            if not (folder / version).exists():
                raise
            _refuse_other_content(folder / version, contents)
        sync_files(set(), folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return _sha256(contents[MANIFEST])


def load_model(folder: Path, version: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The files (name -> text) and the manifest of a version, every file checked against its SHA-256.

    Raises `LakeError` with every file that is missing or altered.
    """
    place = folder / version
    document = _manifest_bytes(folder, version)
    try:
        manifest = json.loads(document)
        listed = {str(name): str(facts["sha256"]) for name, facts in manifest["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LakeError(f"{place / MANIFEST} is not a model manifest; {_REMEDY}") from None
    files, wrong = {}, []
    for name, sha256 in listed.items():
        file = place / name
        if not _SAFE_NAME.fullmatch(name) or not file.is_file():
            wrong.append(f"{file} is missing")
        elif _sha256(content := file.read_bytes()) != sha256:
            wrong.append(f"{file} is not the file that was saved (its SHA-256 differs from the manifest's)")
        else:
            files[name] = content.decode()
    if wrong:
        raise LakeError(f"model {version} is damaged: {'; '.join(wrong)}; {_REMEDY}")
    return files, manifest


def manifest_sha256(folder: Path, version: str) -> str:
    """SHA-256 of the manifest as it lies on disk, to be compared with the one in `model.registry`."""
    return _sha256(_manifest_bytes(folder, version))


_REMEDY = "restore the folder from a backup, or train again and promote the new version"


def _manifest_bytes(folder: Path, version: str) -> bytes:
    if not _SAFE_NAME.fullmatch(version):
        raise LakeError(f"{version!r} is not the name of a model version")
    file = folder / version / MANIFEST
    if not file.is_file():
        raise LakeError(f"there is no model {version}: {file} is missing; {_REMEDY}")
    return file.read_bytes()


def _refuse_unusable(folder: Path, version: str, files: Mapping[str, str], manifest: dict[str, Any]) -> None:
    wrong = [
        f"{name!r} cannot be a name here (letters, digits, '.', '_', '=', '-')"
        for name in (version, *files)
        if not _SAFE_NAME.fullmatch(name)
    ]
    if MANIFEST in files:
        wrong.append(f"{MANIFEST} is written by the store itself")
    if "files" in manifest:
        wrong.append("the manifest's key 'files' is written by the store itself")
    if wrong:
        raise LakeError(f"model {version} cannot be saved in {folder}: {'; '.join(wrong)}")


def _refuse_other_content(place: Path, contents: Mapping[str, bytes]) -> None:
    there = {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}
    if there != contents:
        raise LakeError(f"{place} exists with other content; a version is never changed, save under a new one")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
