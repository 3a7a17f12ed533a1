"""Where the tables' files lie: a local folder, or a prefix of S3-compatible storage.

Here: listing, reading, writing and removing those files, each named by its path below the root as in the catalog.
Not here: DuckDB's own access to them (`connection.py`), and what must be on disk before a commit (`durability.py`).
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from retail_platform.lakehouse.connection import LakeError, secret
from retail_platform.settings import OBJECT_STORAGE, Settings


@dataclass(frozen=True)
class StoredFile:
    """A file as it lies in the storage."""

    bytes: int
    modified: datetime


class DataFiles:
    """The tables' files of one lake. Raises `LakeError` where the storage does not answer."""

    def __init__(self, settings: Settings) -> None:
        self.location = settings.data_location
        self._root = self.location.removeprefix(OBJECT_STORAGE)
        self._filesystem = _object_storage(settings) if settings.on_object_storage else fs.LocalFileSystem()
        self._folders = not settings.on_object_storage

    def refuse_silence(self) -> None:
        """Raise `LakeError` where the folder's parent or the bucket does not answer, or is not there."""
        parent = self._root.split("/")[0] if not self._folders else self._root.rpartition("/")[0]
        with self._answering():
            self._filesystem.get_file_info(fs.FileSelector(parent))

    def listing(self) -> dict[str, StoredFile]:
        """Every Parquet file by its path below the root."""
        with self._answering():
            selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
            found = self._filesystem.get_file_info(selector)
        return {
            info.path.removeprefix(f"{self._root}/"): StoredFile(info.size, info.mtime or datetime.now(UTC))
            for info in found
            if info.type == fs.FileType.File and info.path.endswith(".parquet")
        }

    def address(self, path: str) -> str:
        """The whole address of a file, for people."""
        return f"{self.location}/{path}"

    def open(self, path: str) -> pa.NativeFile:
        """A file to be read; raises `FileNotFoundError` where it is not there."""
        return self._filesystem.open_input_file(f"{self._root}/{path}")

    def write(self, path: str, content: IO[bytes]) -> None:
        """Put a file in its place, over one that may lie there."""
        place = f"{self._root}/{path}"
        with self._answering():
            if self._folders:
                self._filesystem.create_dir(place.rpartition("/")[0])
            with self._filesystem.open_output_stream(place) as target:
                shutil.copyfileobj(content, target, 1 << 20)

    def remove(self, path: str) -> None:
        """Remove a file; one that is not there is no mistake."""
        try:
            self._filesystem.delete_file(f"{self._root}/{path}")
        except FileNotFoundError:
            return

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LakeError(
                f"the storage of the lake's files at {self.location} does not answer: {error}; "
                "`retail-platform doctor` shows what is set"
            ) from error


def _object_storage(settings: Settings) -> Any:
    lake = settings.lake
    scheme, _, host = lake.s3_endpoint.partition("://")
    return fs.S3FileSystem(
        access_key=secret(settings.s3_access_key),
        secret_key=secret(settings.s3_secret_key),
        session_token=secret(settings.s3_session_token) or None,
        region=lake.s3_region,
        endpoint_override=host or None,
        scheme=scheme or "https",
        force_virtual_addressing=lake.s3_url_style == "vhost",
        connect_timeout=10,
        request_timeout=60,
    )
