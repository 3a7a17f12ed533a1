"""A quick part of the fault matrix: its scenarios, with few rounds. `make faults` plays the whole of it."""

import os
from pathlib import Path

import pytest

from retail_platform_tests.faults.ground import CannotRun, Catalog, Ground, Scenario
from retail_platform_tests.faults.matrix import SCENARIOS

SECONDS = 240
"""Many times what a scenario needs, for machines that are busy with other things."""
PARTS = [(scenario, catalog) for scenario in SCENARIOS if scenario.quick for catalog in scenario.quick_on]


@pytest.mark.parametrize(
    ("scenario", "catalog"), PARTS, ids=[f"{scenario.fault} ({catalog})" for scenario, catalog in PARTS]
)
def test_no_law_is_broken_by(
    scenario: Scenario, catalog: Catalog, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("postgres_server") if catalog == "postgres" else None
    try:
        outcome = scenario.played(Ground(tmp_path, catalog, server), scenario.quick, SECONDS)
    except CannotRun as lack:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(lack))
    assert outcome.violations == ()
    assert outcome.rounds >= scenario.quick
