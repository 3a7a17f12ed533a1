"""The document of the tables says what the contracts say."""

import re
from pathlib import Path

import retail_platform
from retail_platform.contracts import TABLES
from retail_platform.contracts.documents import tables_markdown

DOCUMENT = Path(retail_platform.__file__).parents[1] / "docs" / "tables.md"


def test_the_document_is_the_one_written_from_the_contracts() -> None:
    command = "python -m retail_platform.contracts.documents tables > docs/tables.md"
    assert DOCUMENT.read_text(encoding="utf-8") == tables_markdown(), f"write it again: {command}"
    assert command in tables_markdown()


def test_every_table_stands_in_it_once_with_its_grain_and_owner() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| [^|]+ \| ([^|]+) \|", tables_markdown(), re.MULTILINE)
    assert sorted(rows) == sorted((table.name, ", ".join(table.grain), table.owner) for table in TABLES.values())
