"""What must be on disk before a commit may name it.

DuckDB does not fsync Parquet files and DuckLake fsyncs its catalog only, so that a power loss could leave a
committed row in a truncated file. The files that a transaction wrote are therefore synced, with their folders,
before its commit.
"""

import os
from collections.abc import Set as AbstractSet
from pathlib import Path


def data_files(folder: Path) -> set[Path]:
    """Every Parquet file below a table's folder."""
    return set(folder.rglob("*.parquet")) if folder.is_dir() else set()


def sync_files(files: AbstractSet[Path], root: Path) -> None:
    """Force files, `root` and every folder between them to disk."""
    folders = {root}
    for file in files:
        _sync(file)
        folders.update(parent for parent in file.parents if root in parent.parents)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
