"""Landing files become Parquet files in the shape of their raw table, parsed in a child process.

Here: what the child is told, how long it may take, and what its end means. Not here: the parsing (`formats.py`, which
runs in the child), and the landing zone (`files.py`).
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from functools import cache
from pathlib import Path
from signal import Signals
from tempfile import TemporaryFile
from typing import IO, Any

from retail_platform.contracts.feeds import Feed
from retail_platform.settings import FeedSettings, IntakeSettings
from retail_platform.sources.columns import FileColumns, required_columns, wanted_columns, why_unusable
from retail_platform.sources.files import BrokenFile, IntakeError, SpooledFile
from retail_platform.sources.formats import Caps

_OPEN_FILES = 64
_LARGE_FILE_BYTES = 64 * 1024**2
# No secret of ours: neither the catalog's password nor the customer key. The allocators are kept from reserving address
# space in advance, which is what a limit on memory counts.
_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", ""),
    "PYTHONPATH": os.pathsep.join(sys.path),
    "LANG": "C.UTF-8",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
}
_SIGNS_OF_LITTLE_MEMORY = (b"memory allocation of", b"bad_alloc", b"MemoryError", b"out of memory", b"Cannot allocate")


@dataclass(frozen=True)
class ReadFile:
    """A landing file that was read: `path` is a Parquet file of its rows, as the raw table wants them.

    Where the landing file has no rows there may be no such file. `first_date` and `last_date` are the partitions.
    """

    path: Path
    rows: int
    first_date: date | None
    last_date: date | None
    columns: FileColumns


@cache
def file_reader(settings: IntakeSettings) -> "FileReader":
    """The reader of this process. All feeds share it: a child takes a second to start, and reads a small file in
    hundredths of one."""
    return FileReader(settings)


class FileReader:
    """Reads landing files one after the other in a child process.

    The child is started when the first file comes and again when it has died. It ends with this process, and after a
    large file, so that the memory goes back to the machine.
    """

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None
        self._owner = os.getpid()

    def read(
        self,
        spooled: SpooledFile,
        feed: Feed,
        settings: FeedSettings,
        *,
        ingested_at: datetime,
        first_date: date,
        today: date,
        store_time_zones: Mapping[str, str] | None = None,
    ) -> ReadFile:
        """The file's rows as the feed's raw table wants them: business columns as text, plus provenance.

        CSV fields are taken as they stand, an empty one as null; JSON numbers as they are written; Parquet values in
        the form that the feed declares, so that cleaning reads them back as the same values. `partition_date` is the
        row's own date where that is readable and lies from `first_date` to `today`, else `today`. `store_time_zones`
        are needed where that date comes from a time in a declared zone.

        Raises `BrokenFile` where the file cannot be read or is not of its feed, and `IntakeError` where it could not
        be read for want of room.
        """
        if spooled.file.bytes == 0:
            return ReadFile(spooled.path, 0, None, None, FileColumns(spooled.file.format, ()))
        output = spooled.path.with_suffix(".rows")
        provenance = {
            "ingested_at": ingested_at.isoformat(),
            "first_date": first_date.isoformat(),
            "today": today.isoformat(),
            "store_time_zones": dict(store_time_zones or {}),
        }
        with self._one_at_a_time:
            answer = self._ask(spooled, self._request(spooled, feed, settings, output, provenance))
            if spooled.file.bytes > _LARGE_FILE_BYTES:
                self.close()
        if "problem" in answer:
            remedy = answer["remedy"].replace("<feed>", feed.name)
            raise BrokenFile(spooled.file, [answer["problem"]], remedy)
        columns = FileColumns(spooled.file.format, tuple((name, kind) for name, kind in answer["columns"]))
        unusable = why_unusable(feed, settings, columns.names) if columns.columns else None
        if unusable:
            raise BrokenFile(spooled.file, *unusable)
        days = [date.fromisoformat(answer[name]) if answer.get(name) else None for name in ("first_date", "last_date")]
        return ReadFile(output, answer["rows"], days[0], days[1], columns)

    def _request(
        self, spooled: SpooledFile, feed: Feed, settings: FeedSettings, output: Path, provenance: dict[str, Any]
    ) -> dict[str, Any]:
        wanted, intake = wanted_columns(feed, settings), self._settings
        caps = Caps(intake.max_expanded_bytes, intake.max_expansion_ratio, intake.max_rows, intake.max_columns)
        return {
            "feed": feed.name,
            "form": settings.model_dump(mode="json"),
            "job": {
                "path": str(spooled.path),
                "format": spooled.file.format,
                "compressed": spooled.file.compressed,
                "wanted": wanted,
                "caps": asdict(caps),
            },
            "required": [wanted[name] for name in required_columns(feed, settings)],
            "output": str(output),
            "provenance": {"file_id": spooled.file_id, **provenance},
        }

    def _ask(self, spooled: SpooledFile, request: dict[str, Any]) -> dict[str, Any]:
        if self._owner != os.getpid():
            # A fork has the pipes of a child that is its parent's.
            self._process = None
        process = self._process or self._start()
        assert process.stdin is not None  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        took_too_long = threading.Event()

        def stop() -> None:
            took_too_long.set()
            process.kill()

        timer = threading.Timer(self._settings.max_seconds, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            raise self._death(spooled, took_too_long=took_too_long.is_set())
        answer: dict[str, Any] = json.loads(line)
        if "lack" in answer:
            raise self._too_little_memory(spooled)
        if "failure" in answer:
            raise IntakeError(
                f"landing file {spooled.file.feed}/{spooled.file.name} could not be unpacked to {spooled.path.parent}: "
                f"{answer['failure']}; make room there and take it in again"
            )
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        self._messages = TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "retail_platform.sources.reader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env=_ENVIRONMENT,
        )
        limits = {
            "memory_bytes": self._settings.max_memory_bytes,
            "file_bytes": self._settings.max_expanded_bytes,
            "open_files": _OPEN_FILES,
            "seconds": int(self._settings.max_seconds) * (os.cpu_count() or 1),
        }
        assert process.stdin is not None  # noqa: S101
        process.stdin.write(json.dumps(limits).encode() + b"\n")
        process.stdin.flush()
        self._process, self._owner = process, os.getpid()
        assert process.stdout is not None  # noqa: S101
        if not process.stdout.readline():
            said = self._last_words().decode(errors="replace").strip().splitlines()
            self.close()
            raise IntakeError(
                f"the process that reads landing files does not start: {said[-1] if said else 'it says nothing'}; "
                "see `retail-platform doctor` and the limits of this machine, and take the files in again"
            )
        return process

    def _death(self, spooled: SpooledFile, *, took_too_long: bool) -> BrokenFile:
        """What the end of the child in the middle of a file says of the file."""
        assert self._process is not None  # noqa: S101
        code = self._process.wait()
        said = self._last_words()
        self.close()
        if took_too_long or code == -Signals.SIGXCPU:
            problem = f"reading it took more than {self._settings.max_seconds:g} s"
            return BrokenFile(spooled.file, [problem], "Split it, or raise intake.max_seconds in retail.toml.")
        if any(sign in said for sign in _SIGNS_OF_LITTLE_MEMORY):
            return self._too_little_memory(spooled)
        how = f"signal {Signals(-code).name}" if code < 0 else f"exit code {code}"
        return BrokenFile(
            spooled.file, [f"the process that reads it ended with {how}"], "Write the file again, in another way."
        )

    def _too_little_memory(self, spooled: SpooledFile) -> BrokenFile:
        problem = f"reading it needs more than {self._settings.max_memory_bytes // 1024**2:,} MB of memory"
        return BrokenFile(spooled.file, [problem], "Split it, or raise intake.max_memory_bytes in retail.toml.")

    def _last_words(self) -> bytes:
        assert self._messages is not None  # noqa: S101
        size = self._messages.seek(0, os.SEEK_END)
        self._messages.seek(max(size - 4096, 0))
        return self._messages.read()

    def close(self) -> None:
        """End the child, if there is one. The next file starts another."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process.wait()
        if self._messages is not None:
            self._messages.close()
        self._process = self._messages = None
