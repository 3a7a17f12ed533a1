"""Every kind of hostile file has the outcome that the table says, all of them landed together."""

from collections.abc import Mapping

import pytest

from retail_platform_tests.hostile_files import HOSTILE_FILES, HostileFile, run


@pytest.fixture(scope="module")
def differences(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return run(HOSTILE_FILES, tmp_path_factory.mktemp("hostile") / "home")


@pytest.mark.parametrize("case", HOSTILE_FILES, ids=lambda case: case.name.encode("ascii", "replace").decode())
def test_a_hostile_file_has_its_outcome(differences: Mapping[str, str], case: HostileFile) -> None:
    assert differences[case.name] == ""


def test_the_table_is_long_and_names_each_kind_once() -> None:
    assert len(HOSTILE_FILES) >= 60
    assert len({case.name for case in HOSTILE_FILES}) == len(HOSTILE_FILES)
