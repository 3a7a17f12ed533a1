"""What the pages say of the project is so: links lead somewhere, commands and settings exist."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import retail_platform
from retail_platform.cli import app
from retail_platform.settings import Settings

ROOT = Path(retail_platform.__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_the_readme_names_every_command_and_no_other() -> None:
    table = re.search(r"\| command \|.*?\n\n", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert table is not None
    spans = re.findall(r"`([^`]+)`", "\n".join(line.split(" | ")[0] for line in table[0].splitlines()[2:]))
    named = {_command(span.removeprefix("retail-platform ")) for span in spans}
    assert named == set(_commands(app))


def test_the_settings_that_the_readme_shows_are_accepted() -> None:
    block = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    assert Settings.model_validate(tomllib.loads(block[1])).forecast.item_level == "category"


def test_the_sources_that_the_page_shows_are_accepted() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "sources.md").read_text(encoding="utf-8"), re.DOTALL)
    sources = Settings.model_validate(tomllib.loads("\n".join(blocks))).sources
    assert {name: source.kind for name, source in sources.items()} == {
        "tills": "postgres",
        "weather": "open_meteo",
        "economy": "fred",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_into_the_code_that_a_page_names_exists(page: Path) -> None:
    rooms = "|".join(folder.name for folder in (ROOT / "retail_platform").iterdir() if folder.is_dir())
    paths = re.findall(rf"`((?:retail_platform/)?(?:{rooms})/[\w/]+\.py)`", page.read_text(encoding="utf-8"))
    missing = [
        path for path in paths if not (ROOT / "retail_platform" / path.removeprefix("retail_platform/")).exists()
    ]
    assert missing == []


def _command(words: str) -> str:
    """The command without its options and arguments: small letters up to the first that is not."""
    match = re.match(r"[a-z0-9-]+(?: [a-z0-9-]+)*", re.split(r" \[| --| \"| [A-Z]", words)[0])
    return match[0] if match else words


def _commands(commands: typer.Typer, before: str = "") -> Iterator[str]:
    for command in commands.registered_commands:
        assert command.callback is not None
        yield f"{before}{command.name or command.callback.__name__}"
    for group in commands.registered_groups:
        assert group.typer_instance is not None
        yield from _commands(group.typer_instance, f"{before}{group.name} ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    known = set(_commands(app))
    shown = re.findall(r"retail-platform\s+((?:[a-z0-9-]+\s*){1,2})", page.read_text(encoding="utf-8"))
    words = [found.split() for found in shown]
    unknown = [found for found in words if not {" ".join(found), found[0]} & known]
    assert unknown == []
