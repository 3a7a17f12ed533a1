"""The fault matrix: every scenario and its law, in the order of the report."""

from retail_platform_tests.faults.concurrency import race, writers_readers_and_maintenance
from retail_platform_tests.faults.differences import catalog_behind_files, files_behind_catalog, restore_drill
from retail_platform_tests.faults.ground import Scenario, Theme
from retail_platform_tests.faults.hostile import hostile_files
from retail_platform_tests.faults.kills import kill_at, kill_at_random, kill_while_creating
from retail_platform_tests.faults.limits import disk_full, no_descriptors, read_only
from retail_platform_tests.faults.power import power_loss
from retail_platform_tests.faults.runs import kill_before_event
from retail_platform_tests.faults.server import kill_server
from retail_platform_tests.hostile_files import HOSTILE_FILES

_WRITERS = "writers replace slices of two tables, replace a table and ingest landing files in turn"

THEMES = (
    Theme(
        "Processes that die",
        "What was acknowledged to the writer is there once; the one write under way is there once or not at all, and no "
        "part of it; the next writer is not hindered; what is left behind are files without use, which `lake fsck` finds "
        "and `lake maintain` removes.",
        (
            Scenario(
                "kill -9 at a random moment",
                f"{_WRITERS}; killed from outside within 0.8 s after the start or after an acknowledged write",
                kill_at_random,
                rounds=40,
                quick=1,
            ),
            Scenario(
                "kill -9 after the insert, before fsync",
                f"{_WRITERS}; the process kills itself there, in its first to fourth commit",
                kill_at("inserted"),
                rounds=18,
                quick=1,
                quick_only_on="sqlite",
            ),
            Scenario(
                "kill -9 after fsync, before the commit",
                "the same, at that point",
                kill_at("synced"),
                rounds=18,
                quick=1,
                quick_only_on="postgres",
            ),
            Scenario(
                "kill -9 after the commit, before it is acknowledged",
                "the same, at that point",
                kill_at("committed"),
                rounds=18,
                quick=1,
                quick_only_on="sqlite",
            ),
            Scenario(
                "kill -9 while the lake is created",
                "the first writer of a new home is killed within 0.4 s; a second one creates what is missing and writes",
                kill_while_creating,
                rounds=8,
                quick=1,
                quick_only_on="postgres",
            ),
        ),
    ),
    Theme(
        "Dagster's record is lost",
        "The lake decides what is out of date, not Dagster's event log: the same command writes nothing of what was "
        "committed again and makes the rest, the dead run holds nothing back, and in the end nothing is asked for.",
        (
            Scenario(
                "kill -9 after the commit, before Dagster's event of it",
                "a real Dagster run from a landing file to clean sales dies right after one of its commits, and the "
                "same command is given again",
                kill_before_event,
                rounds=12,
                quick=1,
                quick_only_on="sqlite",
            ),
        ),
    ),
    Theme(
        "The power goes, or the server",
        "Every file that a commit names, and every folder that names the file, was forced to disk before the commit; "
        "without what was not, the lake holds what was acknowledged. A writer whose server is gone is told so.",
        (
            Scenario(
                "the power goes",
                "strace records what a writer wrote and forced to disk; it dies at one of the named points, and what was not "
                "forced to disk by then is taken away: bytes, and names in folders",
                power_loss,
                rounds=12,
                quick=1,
                quick_only_on="sqlite",
            ),
            Scenario(
                "the PostgreSQL server is killed, or one of its sessions",
                f"{_WRITERS}; in turn kill -9 of the server, which is started again, and of a session, whereupon PostgreSQL ends "
                "them all and recovers",
                kill_server,
                rounds=24,
                quick=2,
                catalogs=("postgres",),
            ),
        ),
    ),
    Theme(
        "Many processes at once",
        "Nothing is lost, nothing is doubled; no writer, no reader and no maintenance fails, and no reader sees a part of a "
        "commit.",
        (
            Scenario(
                "four writers of one table",
                "four processes begin together without a lake: each replaces the slice that all share, a slice of its own and "
                "appends, again and again",
                race,
                rounds=10,
                quick=2,
            ),
            Scenario(
                "two writers, four readers and maintenance together",
                "writers share an amount out anew between two tables; readers add it up in one statement and read a table as "
                "a stream; maintenance expires, merges and removes files used last 20 s ago or longer",
                writers_readers_and_maintenance,
                rounds=30,
                quick=3,
            ),
        ),
    ),
    Theme(
        "Want of room",
        "The error is clean and names what could not be written, from the command line one sentence; the lake is as it was; "
        "and once there is room the same work succeeds, with every row there once.",
        (
            Scenario(
                "the disk is full",
                "a home on a disk of 32 MB: commits with ever more room left, and `ingest` of a file that is too large, with "
                "2 MB, 100 kB and nothing left; then the same with room",
                disk_full,
                rounds=24,
                quick=2,
                quick_only_on="sqlite",
            ),
            Scenario(
                "the home, or the folder of its tables, is read-only",
                "a read-only mount that comes and goes: commits, and `ingest`",
                read_only,
                rounds=9,
                quick=2,
                quick_only_on="sqlite",
            ),
            Scenario(
                "no file descriptor is left",
                "commits with 0 to 39 descriptors left, and `ingest` in a process that may open 24 files",
                no_descriptors,
                rounds=40,
                quick=2,
                quick_only_on="sqlite",
            ),
        ),
    ),
    Theme(
        "Damage, and the way back",
        "`lake fsck` names every file that is gone, damaged or unknown, and nothing else; a restored lake equals the one "
        "that was saved, snapshot by snapshot and row by row, and is written on.",
        (
            Scenario(
                "the catalog is older than the files",
                "the catalog of an earlier moment is put back; `fsck` must name each file that it does not know, and nothing else",
                catalog_behind_files,
                rounds=6,
                quick=1,
                quick_only_on="sqlite",
            ),
            Scenario(
                "files are gone or damaged",
                "one to three files at a time removed, cut off, emptied or overwritten; `fsck --deep` must name each, and "
                "nothing else",
                files_behind_catalog,
                rounds=18,
                quick=1,
                quick_only_on="sqlite",
            ),
            Scenario(
                "the lake is lost",
                "backup, further commits, then half of the files, all files, the catalog or everything is gone; restored, every "
                "snapshot is compared with what was saved",
                restore_drill,
                rounds=4,
                quick=1,
                quick_only_on="sqlite",
            ),
        ),
    ),
    Theme(
        "Hostile files",
        "Each file has the outcome that the table below says, whatever lies beside it in the landing zone, and the lake is "
        "sound after all of them.",
        (
            Scenario(
                "hostile landing files",
                "broken, misleading or malicious files of all formats land together; each must have the outcome that the table "
                "below says, and the lake must be sound after all of them",
                hostile_files,
                rounds=len(HOSTILE_FILES),
                quick=0,  # unit/sources lands them all in `make test`
            ),
        ),
    ),
)

SCENARIOS = tuple(scenario for theme in THEMES for scenario in theme.scenarios)
