"""Catalog and files that have come apart, and the way back: fsck names every difference, a restore mends it.

The law: of every file that is gone, cut off or altered, and of every file that the catalog does not know, there is one
finding with its path, and no other finding; a restored lake is equal to the one that was saved, snapshot by snapshot,
and is written on.
"""

import os
import random
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from pathlib import Path

from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.backup import back_up, restore
from retail_platform.lakehouse.catalog_copy import load_catalog, save_catalog, set_catalog_aside
from retail_platform.lakehouse.fsck import fsck
from retail_platform.settings import Settings
from retail_platform_tests.faults.books import SEED
from retail_platform_tests.faults.ground import Ground, Outcome
from retail_platform_tests.faults.worker import JOBS, Order

AT_ONCE = timedelta(0)


def catalog_behind_files(ground: Ground, rounds: int) -> Outcome:
    """The catalog is put back to an earlier moment, and files of all commits since are there."""
    chance = random.Random(f"{SEED} behind")  # noqa: S311
    violations: list[str] = []
    named = 0
    for number in range(rounds):
        with ground.home() as settings:
            _write(settings, chance, 3)
            saved = settings.home / "saved.sqlite"
            save_catalog(settings, saved)
            then, before = contents(settings), _files(settings)
            _write(settings, chance, chance.randint(1, 3), first=3)
            newer = dict.fromkeys(_files(settings) - before, "file not catalogued")
            _put_back(settings, saved)
            broken = _named_exactly(settings, newer)
            if contents(settings) != then:
                broken.append("the lake does not read as it did when its catalog was saved")
            named += len(newer)
            violations += [f"round {number}: {words}" for words in broken]
    return Outcome(rounds, f"{named} files that the catalog did not know, each named", tuple(violations))


def files_behind_catalog(ground: Ground, rounds: int) -> Outcome:
    """Files are gone, cut off, emptied, altered in the middle or the file of another table."""
    chance = random.Random(f"{SEED} ahead")  # noqa: S311
    violations: list[str] = []
    named = 0
    with ground.home() as settings:
        _write(settings, chance, 4)
        for number in range(rounds):
            damaged = {}
            whole = {}
            for path in chance.sample(sorted(_files(settings)), chance.randint(1, 3)):
                place = settings.lake_data / path
                whole[place] = place.read_bytes()
                damaged[path] = _damage(settings, place, number + len(whole), chance)
            named += len(damaged)
            violations += [f"round {number}: {words}" for words in _named_exactly(settings, damaged)]
            for place, content in whole.items():
                place.write_bytes(content)
        violations += [f"all mended, and fsck finds: {words}" for words in _named_exactly(settings, {})]
    return Outcome(rounds, f"{named} files lost or damaged, each named", tuple(violations))


def restore_drill(ground: Ground, rounds: int) -> Outcome:
    """Backup, further commits, damage, restore: the lake is the one that was saved, and goes on."""
    chance = random.Random(f"{SEED} drill")  # noqa: S311
    violations: list[str] = []
    compared = 0
    for number in range(rounds):
        with ground.home() as settings:
            place = ground.folder / f"backups-{settings.home.name}"
            _write(settings, chance, 3)
            saved = _history(settings)
            back_up(Lakehouse(settings), place)
            _write(settings, chance, chance.randint(0, 2), first=3)
            what = _ruin(settings, number, chance)
            restored = restore(Lakehouse(settings), place, force=True)
            broken = [f"fsck after the restore: {finding.message}" for finding in restored.findings]
            if _history(settings) != saved:
                broken.append("the restored lake differs from the one that was saved")
            _write(settings, chance, 1, first=9)
            broken += _named_exactly(settings, {})
            compared += len(saved)
            violations += [f"round {number} ({what}): {words}" for words in broken]
    return Outcome(rounds, f"{compared} snapshots compared, row by row", tuple(violations))


def _write(settings: Settings, chance: random.Random, commits: int, first: int = 0) -> None:
    """So many commits of each job, in an order by chance."""
    turns = [(job, number) for job in JOBS for number in range(first, first + commits)]
    chance.shuffle(turns)
    for job, number in turns:
        order = Order(home=str(settings.home), catalog=settings.catalog, job=job, first=number, last=number)
        for _ in JOBS[job](Lakehouse(settings), order):
            pass


def _files(settings: Settings) -> set[str]:
    return {str(file.relative_to(settings.lake_data)) for file in settings.lake_data.rglob("*.parquet")}


def contents(
    settings: Settings, at: int | None = None, only: Collection[str] | None = None
) -> Mapping[str, list[tuple[object, ...]]]:
    """The rows of every table that has some, or of some tables, in order."""
    with Lakehouse(settings).connection(at=at) as connection:
        tables = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() WHERE database_name = 'lake' ORDER BY ALL"
        ).fetchall()
        chosen = [name for (name,) in tables if only is None or name in only]
        rows = {name: connection.execute(f"FROM {name}").fetchall() for name in chosen}
    return {name: sorted(found, key=str) for name, found in rows.items() if found}


def _history(settings: Settings) -> list[object]:
    """What each snapshot holds, from the first to the last, of the tables that have rows in the end."""
    snapshots = Lakehouse(settings).snapshots()["snapshot_id"].sort()
    tables = set(contents(settings))
    return [(number, contents(settings, number, tables)) for number in snapshots if number]


def _put_back(settings: Settings, saved: Path) -> None:
    aside = settings.home / "aside"
    aside.mkdir()
    set_catalog_aside(settings, aside)
    load_catalog(settings, saved)


def _named_exactly(settings: Settings, expected: Mapping[str, str]) -> list[str]:
    """fsck must have one finding for each of these files, of this kind and with its path, and no other.

    Where raw rows or their ledger are concerned, it may add that the two cannot be compared.
    """
    findings = fsck(Lakehouse(settings), orphans_older_than=AT_ONCE, deep=True)
    if any(path.startswith("raw/") for path in expected):
        findings = [finding for finding in findings if finding.kind != "ledger disagrees"]
    broken = []
    for path, kind in expected.items():
        of_file = [finding for finding in findings if path in finding.message]
        if [finding.kind for finding in of_file] != [kind]:
            broken.append(f"{path} should be named once as '{kind}', and fsck says {[f.message for f in of_file]}")
        findings = [finding for finding in findings if finding not in of_file]
    return broken + [f"fsck finds what is not there: {finding.message}" for finding in findings]


def _damage(settings: Settings, file: Path, number: int, chance: random.Random) -> str:
    """Damage a file in one of six ways; the kind of finding that it must give."""
    whole = file.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    ways: list[Callable[[], object]] = [
        file.unlink,
        lambda: file.write_bytes(whole[: chance.randrange(1, len(whole))]),
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(bytes(len(whole))),
        lambda: file.write_bytes(whole[:footer] + os.urandom(len(whole) - footer - 8) + whole[-8:]),
        lambda: file.write_bytes(whole[:4] + bytes(byte ^ 0xFF for byte in whole[4:footer]) + whole[footer:]),
    ]
    way = number % len(ways)
    ways[way]()
    return "file missing" if way == 0 else "file damaged"


def _ruin(settings: Settings, number: int, chance: random.Random) -> str:
    """Ruin the lake in one of four ways; which."""
    files = sorted(settings.lake_data.rglob("*.parquet"))
    way = ("half of the files are gone", "all files are empty", "the catalog is gone", "everything is gone")[number % 4]
    if number % 4 == 0:
        for file in chance.sample(files, max(1, len(files) // 2)):
            file.unlink()
    elif number % 4 == 1:
        for file in files:
            file.write_bytes(b"")
    if number % 4 >= 2:
        aside = settings.home / "lost"
        aside.mkdir()
        set_catalog_aside(settings, aside)
    if number % 4 == 3:
        for file in files:
            file.unlink()
    return way
