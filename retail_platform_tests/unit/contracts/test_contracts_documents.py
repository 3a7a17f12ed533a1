"""The document of the feeds says what the contracts say, and its examples work."""

import re
import tomllib
from datetime import datetime
from pathlib import Path

import pytest

import retail_platform
from retail_platform.cleaning import References, clean_feed
from retail_platform.contracts import FEEDS
from retail_platform.contracts.documents import example_csv, feeds_markdown
from retail_platform.settings import Settings
from retail_platform.sources.files import discover
from retail_platform_tests.landing import ReadLandingFile

DOCUMENT = Path(retail_platform.__file__).parents[1] / "docs" / "feeds.md"


def test_the_document_is_the_one_written_from_the_contracts() -> None:
    command = "python -m retail_platform.contracts.documents > docs/feeds.md"
    assert DOCUMENT.read_text(encoding="utf-8") == feeds_markdown(), f"write it again: {command}"
    assert command in feeds_markdown()


@pytest.mark.parametrize("name", FEEDS)
def test_the_example_of_every_feed_arrives_as_one_clean_row(
    name: str, tmp_path: Path, read_landing_file: ReadLandingFile
) -> None:
    feed = FEEDS[name]
    block = re.search(rf"{name}/example.csv <<'END'\n(.*?)END\n", feeds_markdown(), re.DOTALL)
    assert block is not None
    assert block[1] == example_csv(feed)
    (tmp_path / name).mkdir()
    (tmp_path / name / "example.csv").write_text(block[1], encoding="utf-8")
    now = datetime(2018, 1, 1)
    (file,) = discover(tmp_path, name)[0]
    raw = read_landing_file(file, ingested_at=now)
    cleaned = clean_feed(name, raw, references=References(), now=now, today=now.date(), customer_key=b"key")
    assert cleaned.rejected["reasons"].to_list() == []
    assert cleaned.clean.height == 1


def test_the_settings_shown_are_settings_that_are_accepted() -> None:
    block = re.search(r"```toml\n(.*?)```", feeds_markdown(), re.DOTALL)
    assert block is not None
    sales = Settings.model_validate(tomllib.loads(block[1])).feed("pos_sales")
    assert (sales.delimiter, sales.columns["item_id"]) == (";", "sku")
