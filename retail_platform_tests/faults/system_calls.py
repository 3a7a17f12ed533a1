"""What a process did to files, read from a record of its system calls, and what a power loss would take of it.

A power loss keeps what was forced to disk with fsync, and may take everything else: bytes written since, and the names
of files whose folder was not forced to disk since they appeared. `Disk` follows a record made by `strace` and knows at
each moment which files are safe. Not here: running anything (`power.py`).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TRACED = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,sendto,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink,unlinkat,link,linkat,mkdir,mkdirat,copy_file_range,sendfile"
)

_LINE = re.compile(r"^(?P<pid>\d+)\s+(?P<rest>.*)$")
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"^<\.\.\. \w+ resumed>(?P<rest>.*)$")
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)", re.DOTALL)
_DESCRIPTOR = re.compile(r"^\d+<(?P<path>/[^>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Call:
    """A system call that succeeded, with the lines of the record on which it began and ended."""

    name: str
    arguments: str
    result: int
    began: int
    ended: int

    @property
    def file(self) -> Path | None:
        """The file behind the descriptor that is its first argument, or that it opened."""
        found = _DESCRIPTOR.match(self.arguments)
        return Path(found["path"]) if found else None

    @property
    def paths(self) -> list[Path]:
        """The paths in its arguments."""
        return [Path(path) for path in _QUOTED.findall(self.arguments)]

    def number(self, place: int) -> int:
        """The argument at this place, counted from the end as in a list."""
        return int(self.arguments.rsplit(", ")[place])


def calls(record: Path) -> Iterator[Call]:
    """The calls of all threads and processes in a record that `strace -f -y` wrote, in the order in which they ended."""
    begun: dict[str, tuple[int, str]] = {}
    with record.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            matched = _LINE.match(line.rstrip("\n"))
            if matched is None:
                continue
            pid, rest = matched["pid"], matched["rest"]
            if rest.endswith(_UNFINISHED):
                begun[pid] = number, rest.removesuffix(_UNFINISHED)
                continue
            began = number
            resumed = _RESUMED.match(rest)
            if resumed:
                began, start = begun.pop(pid, (number, ""))
                rest = start + resumed["rest"]
            call = _CALL.match(rest)
            if call and int(call["result"]) >= 0:
                yield Call(call["name"], call["arguments"], int(call["result"]), began, number)


@dataclass
class _File:
    """A file or folder: its size, what of it is on disk, and when it was last changed and forced to disk."""

    size: int = 0
    size_on_disk: int = 0
    overwritten: list[tuple[int, int]] = field(default_factory=list)
    """Places and lengths of what was written over bytes that are on disk, since."""
    changed: int = -1
    forced: int = -1


@dataclass
class _Name:
    """One of the names of a file, and when it appeared in its folder; -1 where it was there from the beginning."""

    file: _File
    appeared: int = -1


class Disk:
    """The files below a folder, as a record of system calls leaves them, and which of them are safe."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[Path, _Name] = {}
        for path in [root, *root.rglob("*")]:
            size = path.stat().st_size if path.is_file() else 0
            self._names[path] = _Name(_File(size, size))

    def follow(self, call: Call) -> None:
        """Take note of a call."""
        handler = _HANDLERS.get(call.name)
        if handler:
            handler(self, call)

    def losses(self, path: Path) -> list[str]:
        """Why a file might not be there whole after a power loss; empty where it is safe."""
        name = self._names.get(path)
        if name is None:
            return [f"{path} was never written"]
        losses = []
        if name.file.changed > name.file.forced:
            losses.append(f"{path} was written to and not forced to disk")
        for entry in [path, *path.parents]:
            known, folder = self._names.get(entry), self._names.get(entry.parent)
            if known and folder and known.appeared > folder.file.forced:
                losses.append(f"the name {entry} was not forced to disk")
        return losses

    def take_what_is_not_safe(self, *, below: Callable[[Path], bool]) -> int:
        """Lose what a power loss may take of the files that `below` says are concerned; how many lost something."""
        lost = 0
        for path, name in self._names.items():
            losses = self.losses(path)
            if not losses or not path.is_file() or not below(path):
                continue
            lost += 1
            if any(words.startswith("the name") for words in losses):
                path.unlink()
                continue
            with path.open("r+b") as content:
                for place, length in name.file.overwritten:
                    content.seek(place)
                    content.write(bytes(min(length, max(0, name.file.size_on_disk - place))))
                content.truncate(name.file.size_on_disk)
        return lost

    def _of(self, path: Path | None) -> _File | None:
        if path is None or not path.is_relative_to(self._root):
            return None
        return self._names.setdefault(path, _Name(_File())).file

    def _opened(self, call: Call) -> None:
        path = call.paths[0] if call.paths else None
        if path is None or not re.search("O_CREAT|O_TRUNC", call.arguments):
            return
        is_new = path not in self._names
        file = self._of(path)
        if file is None:
            return
        if is_new:
            self._names[path].appeared = call.ended
        if "O_TRUNC" in call.arguments:
            file.size, file.changed = 0, call.ended

    def _written(self, call: Call) -> None:
        """At the end of the file; nothing that is followed here writes elsewhere without saying where."""
        file = self._of(call.file)
        if file:
            file.size += call.result
            file.changed = call.ended

    def _written_at(self, call: Call) -> None:
        file = self._of(call.file)
        if file:
            place = call.number(-1)
            if place < file.size_on_disk:
                file.overwritten.append((place, call.result))
            file.size = max(file.size, place + call.result)
            file.changed = call.ended

    def _truncated(self, call: Call) -> None:
        file = self._of(call.file or (call.paths[0] if call.paths else None))
        if file:
            file.size = call.number(-1)
            file.changed = call.ended

    def _forced(self, call: Call) -> None:
        file = self._of(call.file)
        if file:
            # What was written while it was under way is not in it.
            file.forced = call.began
            if file.changed < call.began:
                file.size_on_disk, file.overwritten = file.size, []

    def _made(self, call: Call) -> None:
        if self._of(call.paths[0]):
            self._names[call.paths[0]].appeared = call.ended

    def _linked(self, call: Call) -> None:
        source, target = call.paths
        file = self._of(source)
        if file and target.is_relative_to(self._root):
            self._names[target] = _Name(file, call.ended)

    def _moved(self, call: Call) -> None:
        self._linked(call)
        self._names.pop(call.paths[0], None)

    def _removed(self, call: Call) -> None:
        self._names.pop(call.paths[0], None)


_HANDLERS: Mapping[str, Callable[[Disk, Call], None]] = {
    **dict.fromkeys(("open", "openat", "creat"), Disk._opened),
    **dict.fromkeys(("write", "writev", "copy_file_range", "sendfile"), Disk._written),
    **dict.fromkeys(("pwrite64", "pwritev"), Disk._written_at),
    **dict.fromkeys(("ftruncate", "truncate"), Disk._truncated),
    **dict.fromkeys(("fsync", "fdatasync"), Disk._forced),
    **dict.fromkeys(("mkdir", "mkdirat"), Disk._made),
    **dict.fromkeys(("link", "linkat"), Disk._linked),
    **dict.fromkeys(("rename", "renameat", "renameat2"), Disk._moved),
    **dict.fromkeys(("unlink", "unlinkat"), Disk._removed),
}
