"""Landing files that are broken, misleading or malicious; the table of them is `hostile_files.py`.

The law: each has its outcome by the table, whatever lies beside it, and the lake is sound after all of them.
"""

from collections import Counter
from datetime import timedelta

from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.fsck import fsck
from retail_platform_tests.faults.ground import Ground, Outcome
from retail_platform_tests.hostile_files import HOSTILE_FILES, run


def hostile_files(ground: Ground, rounds: int) -> Outcome:
    """The first `rounds` kinds of hostile files, landed together."""
    kinds = HOSTILE_FILES[:rounds]
    with ground.home() as settings:
        violations = [
            f"{name}: {wrong}" for name, wrong in run(kinds, settings.home, settings.catalog).items() if wrong
        ]
        lake = Lakehouse(settings)
        violations += [finding.message for finding in fsck(lake, orphans_older_than=timedelta(0), deep=True)]
    outcomes = Counter(kind.expected.outcome for kind in kinds)
    seen = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    return Outcome(len(kinds), f"{len(kinds)} kinds: {seen}", tuple(violations))
