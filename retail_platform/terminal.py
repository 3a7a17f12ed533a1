"""What every command of the command line needs: settings, the lake, and a way to show rows, facts and progress.

Not here: the commands (`cli.py` and the modules named after it).
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

    from retail_platform.lakehouse import Lakehouse
    from retail_platform.settings import Settings

_WIDE = 200
out = Console(width=None if sys.stdout.isatty() else _WIDE)
err = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@contextmanager
def progress(text: str, *, quiet: bool = False) -> Iterator[Any]:
    """A line that shows what is being done: a spinner on a terminal, plain lines elsewhere, nothing where `quiet`."""
    if quiet:
        yield lambda _: None
    elif out.is_terminal:
        with out.status(text) as status:
            yield lambda step: status.update(f"{text}: {step}")
    else:
        out.print(text, highlight=False)
        yield lambda step: out.print(f"  {step}", highlight=False, soft_wrap=True)


def print_facts(title: str, facts: Sequence[tuple[str, str]]) -> None:
    """Labels with their values, as a grid."""
    grid = Grid(title, "", show_header=True)
    for label, value in facts:
        grid.add_row(label, value)
    out.print(grid)


def print_frame(frame: "pl.DataFrame", *, as_json: bool, empty: str = "") -> None:
    """Rows as a grid, or as a JSON array of objects for programs; `empty` is said where there are none."""
    if as_json:
        sys.stdout.write(json.dumps(frame.to_dicts(), default=str) + "\n")
    elif frame.is_empty():
        out.print(empty or "no rows", highlight=False)
    else:
        grid = Grid()
        for name in frame.columns:
            grid.add_column(name, overflow="fold")
        for row in frame.iter_rows():
            # Text, because a value with brackets in it is no markup.
            grid.add_row(*(Text(f"{value:,.4g}" if isinstance(value, float) else str(value)) for value in row))
        out.print(grid)


def plain(record: Any) -> dict[str, Any]:
    """A dataclass as a row that can be printed."""
    from dataclasses import asdict

    return {name: value if isinstance(value, int | float) else str(value) for name, value in asdict(record).items()}


def stop(sentence: str) -> NoReturn:
    """End the command over a user's mistake, with exit code 1."""
    err.print(sentence, style="red", soft_wrap=True, highlight=False, markup=False)
    raise SystemExit(1)


def current_settings() -> "Settings":
    """The settings in force here."""
    from retail_platform.settings import load_settings

    return load_settings()


def prepared_settings() -> "Settings":
    """The settings in force here, after the home folder was made."""
    from retail_platform.orchestration.runner import prepare_home

    settings = current_settings()
    prepare_home(settings)
    return settings


def lakehouse_of(settings: "Settings") -> "Lakehouse":
    """The lake of these settings; opens nothing yet."""
    from retail_platform.lakehouse import Lakehouse

    return Lakehouse(settings)
