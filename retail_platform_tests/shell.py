"""The command line as a test gives it: `retail-platform` in this process, with the settings of a retailer."""

import json
import os
import sys
from pathlib import Path

import pytest

from retail_platform.cli import main
from retail_platform_tests.simulated_retailer import Retailer


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `retail-platform WORDS`, in this process."""
    monkeypatch.setattr(sys, "argv", ["retail-platform", *words])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class Shell:
    """`retail-platform` with the settings of a retailer."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch
        for name in list(os.environ):
            if name.startswith("RETAIL_"):
                monkeypatch.delenv(name)
        monkeypatch.chdir(directory)
        self.home = directory / "home"
        monkeypatch.setenv("RETAIL_HOME", str(self.home))

    def use(self, retailer: Retailer) -> "Shell":
        self.home = retailer.settings.home
        self.monkeypatch.setenv("RETAIL_HOME", str(self.home))
        self.monkeypatch.setenv("RETAIL_START_DATE", str(retailer.settings.start_date))
        return self

    def __call__(self, *words: str) -> tuple[int, str, str]:
        return run(self.capsys, self.monkeypatch, *words)

    def refused(self, *words: str) -> str:
        """What is said at the end of a command that the user got wrong."""
        code, _, errors = self(*words)
        assert code == 1, errors
        assert "Traceback" not in errors
        return errors.strip()

    def rows(self, *words: str) -> list[dict[str, object]]:
        code, output, errors = self(*words)
        assert code == 0, errors
        rows = json.loads(output)
        assert isinstance(rows, list)
        return rows


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    return Shell(capsys, monkeypatch, tmp_path)
