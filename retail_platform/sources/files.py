"""The landing zone: which files lie there, which of them are complete, and a copy of each that nobody else can touch.

Here: names, kinds and quiet of files, and the copy under a generated name with the hash of exactly what was copied.
Not here: what is in a file (`reading.py`), and which files were taken in before (the ledger, `raw.ingested_files`).
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, cast

from retail_platform.contracts import FEEDS

FORMATS = {
    ".csv": ("csv", False),
    ".csv.gz": ("csv", True),
    ".jsonl": ("jsonl", False),
    ".jsonl.gz": ("jsonl", True),
    ".ndjson": ("jsonl", False),
    ".ndjson.gz": ("jsonl", True),
    ".parquet": ("parquet", False),
}
"""Endings of file names: the format, and whether it is compressed with gzip."""

_BLOCK_BYTES = 1024 * 1024
# File systems can hold times that no date can be given to.
_FIRST_SECOND = int(datetime(1, 1, 2, tzinfo=UTC).timestamp())
_LAST_SECOND = int(datetime(9999, 12, 30, tzinfo=UTC).timestamp())


class BrokenFile(Exception):
    """A landing file cannot be taken in; the message names the file, every problem and the remedy."""

    def __init__(self, file: "LandingFile", problems: list[str], remedy: str) -> None:
        super().__init__(f"landing file {file.feed}/{file.name}: {'; '.join(problems)}. {remedy}")
        self.file = file
        self.problems = problems
        self.remedy = remedy


class StillGrowing(Exception):
    """A file changed while it was copied; it is left for the next time."""


class IntakeError(Exception):
    """Files could not be taken in for a reason that lies not in them and may pass, such as a full disk."""


@dataclass(frozen=True)
class LandingFile:
    """A file that may be taken in. `name` is its path below the feed's folder; times are UTC.

    `changed_at` is the file system's own note of the last change of content, name or rights, which cannot be set back.
    """

    feed: str
    path: Path
    name: str
    bytes: int
    modified_at: datetime
    changed_at: datetime

    @property
    def format(self) -> str:
        return FORMATS[_ending(self.path.name)][0]

    @property
    def compressed(self) -> bool:
        return FORMATS[_ending(self.path.name)][1]

    def is_quiet(self, now: datetime, quiet_seconds: float) -> bool:
        """Whether nothing was written to it for so long, as far as its times tell."""
        return (now - self.modified_at).total_seconds() >= quiet_seconds


@dataclass(frozen=True)
class IgnoredFile:
    """A file in a feed's folder that is not taken in, and why."""

    feed: str
    path: Path
    name: str
    reason: str


@dataclass(frozen=True)
class SpooledFile:
    """A landing file's copy under a generated name; `file_id` is the SHA-256 of exactly the bytes in the copy."""

    file: LandingFile
    path: Path
    file_id: str


def discover(landing: Path, feed: str) -> tuple[list[LandingFile], list[IgnoredFile]]:
    """The files of a feed below `landing/<feed>/`, by name; dot-files are passed over without a word.

    A feed without a folder has no files. Symbolic links are not followed, since they could lead out of the landing
    zone.
    """
    folder = landing / feed
    found: list[LandingFile] = []
    ignored: list[IgnoredFile] = []
    for path in sorted(_walk(folder)):
        name = path.relative_to(folder).as_posix()
        try:
            facts = path.lstat()
        except FileNotFoundError:
            continue  # taken away between the listing and now
        reason = _reason_to_ignore(path, name, facts)
        if reason:
            ignored.append(IgnoredFile(feed, path, os.fsencode(name).decode("utf-8", errors="replace"), reason))
        else:
            found.append(_landing_file(feed, path, name, facts))
    return found, ignored


def of_no_feed(landing: Path) -> list[str]:
    """What lies in the landing zone beside the folders of the feeds, where nobody takes it in: in words."""
    strays = sorted(path for path in landing.iterdir() if path.name not in FEEDS) if landing.is_dir() else []
    words = []
    for path in strays:
        if not path.name.startswith("."):
            close = get_close_matches(path.stem, FEEDS, n=1, cutoff=0.4)
            hint = f"; did you mean {close[0]}/?" if close else f"; they are {', '.join(FEEDS)}"
            words.append(f"{path} is taken in by nobody: it lies in no folder of a feed{hint}")
    return words


def settled(before: Sequence[LandingFile], now: Sequence[LandingFile]) -> list[LandingFile]:
    """Those of the files that are the same now, with the same size and times, as when they were looked at before."""
    known = set(before)
    return [file for file in now if file in known]


def copy_to_spool(file: LandingFile, spool: Path, *, max_bytes: int) -> SpooledFile:
    """Copy a landing file into the folder `spool` under a generated name, hashing what is copied.

    Raises `StillGrowing` where the file changed since it was discovered or while it was copied, `BrokenFile` where it
    cannot be read or has more than `max_bytes`, and `IntakeError` where the spool has no room.
    """
    if file.bytes > max_bytes:
        problem = f"{file.bytes:,} bytes, more than {max_bytes:,}"
        raise BrokenFile(file, [problem], "Split it, or raise intake.max_file_bytes in retail.toml.")
    copy = spool / f"{os.urandom(16).hex()}.landed"
    digest = hashlib.sha256()
    copied = 0
    try:
        with _readable(file) as stream, copy.open("xb") as target:
            # No further than it was long when it was found: what is appended meanwhile is seen by its size.
            while copied < file.bytes and (block := stream.read(min(_BLOCK_BYTES, file.bytes - copied))):
                digest.update(block)
                target.write(block)
                copied += len(block)
            facts = os.fstat(stream.fileno())
        if copied != file.bytes or _landing_file(file.feed, file.path, file.name, facts) != file:
            raise StillGrowing  # noqa: TRY301
    except FileNotFoundError:
        raise StillGrowing from None
    except PermissionError as error:
        raise BrokenFile(file, [str(error.strerror)], "Mend its rights or land it again.") from None
    except OSError as error:
        copy.unlink(missing_ok=True)
        raise IntakeError(
            f"landing file {file.feed}/{file.name} could not be copied to {spool}: {error.strerror}; "
            "see whether there is room, and take it in again"
        ) from error
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return SpooledFile(file, copy, digest.hexdigest())


def _readable(file: LandingFile) -> BinaryIO:
    # Not through a link, and not waiting for a pipe, should one have taken the file's place.
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    return cast(BinaryIO, os.fdopen(descriptor, "rb", buffering=0))


def _walk(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            if _ending(path.name):
                yield path
            yield from _walk(path)
        else:
            yield path


def _landing_file(feed: str, path: Path, name: str, facts: os.stat_result) -> LandingFile:
    return LandingFile(feed, path, name, facts.st_size, _utc(facts.st_mtime_ns), _utc(facts.st_ctime_ns))


def _utc(nanoseconds: int) -> datetime:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    seconds = min(max(seconds, _FIRST_SECOND), _LAST_SECOND)
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None, microsecond=rest // 1000)


def _ending(name: str) -> str:
    """The known ending of a file name, in small letters; empty where it has none."""
    return next((ending for ending in sorted(FORMATS, key=len, reverse=True) if name.lower().endswith(ending)), "")


def _reason_to_ignore(path: Path, name: str, facts: os.stat_result) -> str | None:
    if stat.S_ISLNK(facts.st_mode):
        return "a symbolic link; put the file itself here"
    if stat.S_ISDIR(facts.st_mode):
        return "a folder with the name of a file; the files in it are taken in"
    if not stat.S_ISREG(facts.st_mode):
        return "not a regular file"
    if not _ending(path.name):
        return f"its name does not end in {', '.join(FORMATS)}"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return None
