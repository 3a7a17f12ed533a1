"""The fault matrix: every scenario, in the order of the report."""

from retail_platform_tests.faults.ground import Scenario
from retail_platform_tests.faults.kills import kill_at, kill_at_random, kill_while_creating

_WRITERS = "writers replace slices of two tables, replace a table and ingest landing files in turn"

SCENARIOS = (
    Scenario(
        "kill -9 at a random moment",
        f"{_WRITERS}; killed from outside within 0.8 s after the start or after an acknowledged write",
        kill_at_random,
        rounds=45,
        quick=2,
    ),
    Scenario(
        "kill -9 after the insert, before fsync",
        f"{_WRITERS}; the process kills itself there, in its first to fourth commit",
        kill_at("inserted"),
        rounds=18,
        quick=1,
    ),
    Scenario(
        "kill -9 after fsync, before the commit",
        "the same, at that point",
        kill_at("synced"),
        rounds=18,
        quick=1,
    ),
    Scenario(
        "kill -9 after the commit, before it is acknowledged",
        "the same, at that point",
        kill_at("committed"),
        rounds=18,
        quick=1,
    ),
    Scenario(
        "kill -9 while the lake is created",
        "the first writer of a new home is killed within 0.4 s; a second one creates what is missing and writes",
        kill_while_creating,
        rounds=12,
        quick=1,
    ),
)
