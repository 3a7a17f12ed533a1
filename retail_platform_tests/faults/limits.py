"""A disk that is full, a folder that cannot be written, and no file descriptor left.

The law: a clean error that names what could not be written, from the command line one sentence without a traceback;
the lake is as it was; and once there is room again the same work succeeds, with every row there once.

The small disk and the read-only folder are mounts that only a child process sees (`unshare --mount`), so that they
end with it. `python -m retail_platform_tests.faults.limits FAULT HOME CATALOG ROUNDS` is that child; it prints what
came of it.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import polars as pl

from retail_platform.contracts import Table
from retail_platform.lakehouse import LakeError, Lakehouse, ReplaceSlices, ReplaceTable
from retail_platform.lakehouse.fsck import fsck
from retail_platform.settings import Settings
from retail_platform_tests.faults.ground import CannotRun, Ground, Outcome, ask, settings_of
from retail_platform_tests.faults.workers import REPOSITORY
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, STOCK, TUESDAY, sales

DISK_BYTES = 32_000_000
LANDING_ROWS = 150_000
MOST_DESCRIPTORS = 40
ROUNDS_PER_COMMAND = 3
"""One command costs as much as many commits; so few rounds as that have none."""
SECONDS = 500
"""Less than the time limit of a scenario: an interrupted parent would leave its child running."""
COMMAND_LINE = "from retail_platform.cli import main; main()"


def disk_full(ground: Ground, rounds: int) -> Outcome:
    return _in_a_child("disk full", ground, rounds)


def read_only(ground: Ground, rounds: int) -> Outcome:
    return _in_a_child("read only", ground, rounds)


def no_descriptors(ground: Ground, rounds: int) -> Outcome:
    return _in_a_child("no descriptors", ground, rounds)


def _in_a_child(fault: str, ground: Ground, rounds: int) -> Outcome:
    unshare = shutil.which("unshare")
    if unshare is None:
        raise CannotRun("unshare (util-linux) is not installed")
    own_mounts = [unshare, "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*own_mounts, "true"], check=False, capture_output=True).returncode:
        raise CannotRun("this user may not have mounts of its own")
    with ground.home() as settings:
        module = [sys.executable, "-m", "retail_platform_tests.faults.limits"]
        done = subprocess.run(
            [*own_mounts, *module, fault, settings.home, settings.catalog, str(rounds)],
            check=False,
            timeout=SECONDS,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
    if done.returncode:
        return Outcome(0, "", (done.stderr[-2000:],))
    facts = json.loads(done.stdout.splitlines()[-1])
    return Outcome(facts["rounds"], facts["seen"], tuple(facts["violations"]))


def _disk_full(settings: Settings, rounds: int) -> Outcome:
    """Commits with ever more room left, from none to enough; then the command line with a file too large."""
    _mount("-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(settings.home))
    lake, violations = Lakehouse(settings), []
    _begin(lake)
    refused = 0
    for number in range(rounds):
        free = 0 if number == 0 else 4096 * 2 ** (number % 12) + 4096 * (number // 12)
        with _only_free(settings.home, free):
            error = _try_to_write(lake, _rows(number))
        refused += error is not None
        violations += [f"{free:,} bytes free: {broken}" for broken in _judge(lake, number, error)]
    rooms = (2_000_000, 100_000, 0)[: rounds // ROUNDS_PER_COMMAND]
    with _landing(settings, rooms, violations):
        for free in rooms:
            with _only_free(settings.home, free):
                violations += _refused_command(settings, "ingest", "pos_sales")
    seen = f"{refused} commits and {len(rooms)} commands refused for want of room"
    return Outcome(rounds + len(rooms), seen, tuple(violations))


def _read_only(settings: Settings, rounds: int) -> Outcome:
    """The home, or only the folder of the tables, cannot be written for a while."""
    lake, violations = Lakehouse(settings), []
    _begin(lake)
    commands = [settings.home][: rounds // ROUNDS_PER_COMMAND]
    places = [settings.home, settings.lake_data, settings.lake_data / "shop"]
    for number in range(rounds):
        place = places[number % len(places)]
        with _mounted_read_only(place):
            error = _try_to_write(lake, _rows(number))
        if error is None:
            violations.append(f"{place.name} is read-only, and a commit went through")
        violations += [f"{place.name} cannot be written: {broken}" for broken in _judge(lake, number, error)]
    with _landing(settings, commands, violations):
        for place in commands:
            with _mounted_read_only(place):
                violations += _refused_command(settings, "ingest", "pos_sales")
    seen = f"{rounds} commits and {len(commands)} command refused"
    return Outcome(rounds + len(commands), seen, tuple(violations))


def _no_descriptors(settings: Settings, rounds: int) -> Outcome:
    """Commits with ever more file descriptors left, from none to enough."""
    lake, violations = Lakehouse(settings), []
    _begin(lake)
    refused = 0
    for number in range(rounds):
        left = number * MOST_DESCRIPTORS // rounds
        fresh, rows = Lakehouse(settings), _rows(number)
        with _descriptors(left):
            error = _try_to_write(fresh, rows)
        refused += error is not None
        violations += [f"{left} descriptors left: {broken}" for broken in _judge(lake, number, error)]
    commands = [24][: rounds // ROUNDS_PER_COMMAND]
    with _landing(settings, commands, violations):
        for open_files in commands:
            violations += _refused_command(settings, "ingest", "pos_sales", descriptors=open_files)
    seen = f"{refused} commits and {len(commands)} command refused for want of descriptors"
    return Outcome(rounds + len(commands), seen, tuple(violations))


FAULTS: dict[str, Callable[[Settings, int], Outcome]] = {
    "disk full": _disk_full,
    "read only": _read_only,
    "no descriptors": _no_descriptors,
}


def _begin(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, -1)), ReplaceTable(STOCK, sales(MONDAY, -1))], BY)


def _rows(number: int) -> dict[Table, pl.DataFrame]:
    """Rows of write `number` for two tables, a few hundred kilobytes in all."""
    noise = pl.DataFrame({"store": [os.urandom(16).hex() for _ in range(20_000)]})
    return {
        SALES: noise.select(day=pl.lit(TUESDAY), store="store", units=pl.lit(number, pl.Int64)),
        STOCK: sales(TUESDAY, number),
    }


def _try_to_write(lake: Lakehouse, rows: dict[Table, pl.DataFrame]) -> BaseException | None:
    """What a commit of these rows was refused with."""
    try:
        lake.commit([ReplaceSlices(table, frame, [{"day": TUESDAY}]) for table, frame in rows.items()], BY)
    except BaseException as error:  # noqa: BLE001
        return error
    return None


def _judge(lake: Lakehouse, number: int, error: BaseException | None) -> list[str]:
    """A commit that was refused has left the lake as it was; one that was not is there whole."""
    wrong = []
    if error is not None and not isinstance(error, LakeError):
        wrong.append(f"the error is {type(error).__name__}: {error}")
    if error is not None and "shop.sales, shop.stock" not in str(error) and "catalog" not in str(error):
        wrong.append(f"the error does not name what could not be written: {error}")
    for table, rows in (("shop.sales", 20_000), ("shop.stock", 1)):
        there = ask(
            lake,
            f"SELECT count(*), count(DISTINCT units) FROM {table} WHERE day = DATE '{TUESDAY}' AND units = {number}",
        )
        if there != ([(rows, 1)] if error is None else [(0, 0)]):
            wrong.append(f"{table} holds {there} of write {number}, whose error was {error}")
        if ask(lake, f"SELECT units FROM {table} WHERE day = DATE '{MONDAY}'") != [(-1,)]:
            wrong.append(f"{table} has lost what it held before")
    wrong += [finding.message for finding in fsck(lake) if finding.kind != "file not catalogued"]
    return wrong


@contextmanager
def _landing(settings: Settings, commands: Sequence[object], violations: list[str]) -> Iterator[None]:
    """A large landing file for the commands to fail on; at the end, when nothing hinders them, it is taken in."""
    if commands:
        _land_too_much(settings)
    yield
    if commands:
        violations += _ingested(settings)


def _land_too_much(settings: Settings) -> None:
    folder = settings.landing / "pos_sales"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"2017-03-06,S1,I{os.urandom(8).hex()},2,T{n},1\n" for n in range(LANDING_ROWS))
    header = "business_date,store_id,item_id,quantity,transaction_id,line_number\n"
    (folder / "large.csv").write_text(header + lines)


def _command(settings: Settings, *words: str, descriptors: int | None = None) -> subprocess.CompletedProcess[str]:
    limit = [] if descriptors is None else ["prlimit", f"--nofile={descriptors}:{descriptors}"]
    variables = {
        "RETAIL_HOME": str(settings.home),
        "RETAIL_CATALOG": settings.catalog,
        "RETAIL_INTAKE__QUIET_SECONDS": "0",
        "PYTHONPATH": str(REPOSITORY),
    }
    return subprocess.run(
        [*limit, sys.executable, "-c", COMMAND_LINE, *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
        cwd="/",
    )


def _refused_command(settings: Settings, *words: str, descriptors: int | None = None) -> list[str]:
    done = _command(settings, *words, descriptors=descriptors)
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return [f"`{' '.join(words)}` went through: {said[-300:]}"]
    if "Traceback" in said:
        return [f"`{' '.join(words)}` ended with a traceback: {said[-1500:]}"]
    if not said.strip():
        return [f"`{' '.join(words)}` ended with {done.returncode} and not a word"]
    return []


def _ingested(settings: Settings) -> list[str]:
    """The same command, now that nothing hinders it: every row is there once."""
    done = _command(settings, "ingest", "pos_sales")
    if done.returncode:
        return [f"afterwards `ingest` did not work: {(done.stdout + done.stderr)[-1500:]}"]
    lake = Lakehouse(settings)
    there = ask(lake, "SELECT count(*), count(DISTINCT row_number) FROM raw.pos_sales")
    wrong = [] if there == [(LANDING_ROWS, LANDING_ROWS)] else [f"raw.pos_sales holds {there} of {LANDING_ROWS} rows"]
    return wrong + [finding.message for finding in fsck(lake) if finding.kind != "file not catalogued"]


@contextmanager
def _only_free(folder: Path, free: int) -> Iterator[None]:
    """Fill the disk but for `free` bytes."""
    ballast = folder / "ballast"
    room = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_bsize - free))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def _mounted_read_only(folder: Path) -> Iterator[None]:
    _mount("--bind", str(folder), str(folder))
    _mount("-o", "remount,bind,ro", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def _descriptors(left: int) -> Iterator[None]:
    """No more than `left` further files may be open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/", os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    name, home, catalog, times = sys.argv[1:]
    print(json.dumps(asdict(FAULTS[name](settings_of(Path(home), catalog), int(times)))))
