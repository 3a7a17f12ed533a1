"""What must be on disk before a commit may name it.

DuckDB does not fsync Parquet files and DuckLake fsyncs its catalog only, so that a power loss could leave a
committed row in a truncated file. The files that a transaction wrote are therefore synced, with their folders,
before its commit.
"""

import os
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TypeAlias


def data_files(folder: Path) -> set[Path]:
    """Every Parquet file below a table's folder."""
    return set(folder.rglob("*.parquet")) if folder.is_dir() else set()


Folder: TypeAlias = tuple[Path, int]
"""A folder by its path and its number on the disk, which another one in its place does not have."""


def sync_files(files: AbstractSet[Path], root: Path, lasting: AbstractSet[Folder] = frozenset()) -> set[Folder]:
    """Force files, their folders, and every folder between these and `root` to disk, at least `root`; returns the
    folders.

    A folder whose own place was forced to disk before is `lasting`: those above it are left out.
    """
    forced: set[Folder] = set()
    for file in files:
        _sync(file)
    for place in {file.parent for file in files} or {root}:
        for parent in [place, *(parent for parent in place.parents if parent == root or root in parent.parents)]:
            folder = (parent, parent.stat().st_ino)
            if folder not in forced:
                _sync(parent)
                forced.add(folder)
            if folder in lasting:
                break
    return forced


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
