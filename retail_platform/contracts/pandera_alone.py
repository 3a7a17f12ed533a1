"""Pandera as it is where pandas is not installed.

Here: keeping pandas out of Pandera. Not here: any contract (the modules beside this one).

Pandera imports pandas wherever it is installed, and others of our libraries bring it along. Contracts are of Polars
frames, and pandas would be most of what a short command, the child that reads a landing file, or the code location
loads: 0.4 s of each.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from threading import get_ident
from types import ModuleType


class _NoPandas(MetaPathFinder):
    """Finds no pandas for the thread that made it."""

    def __init__(self) -> None:
        self._thread = get_ident()

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if name == "pandas" and get_ident() == self._thread:
            # In these words, by which Pandera knows that it is not installed.
            raise ModuleNotFoundError("No module named 'pandas'", name=name)
        return None


def import_pandera() -> None:
    """Import Pandera without pandas, unless one of them is loaded already."""
    # First, since Polars asks once and for all as well, and is to work with pandas.
    import polars as pl

    if {"pandas", "pandera"} & sys.modules.keys():
        return
    finder = _NoPandas()
    # In a list of its own: another thread that imports may be going through the present one.
    sys.meta_path = [finder, *sys.meta_path]
    try:
        import pandera.polars as pa

        # Only with its first check does Pandera learn for good that pandas is not there. No check is carried out here:
        # that would start the threads of Polars, without which a process that is forked later hangs.
        pa.Check.get_backend(pl.LazyFrame())
    finally:
        sys.meta_path = [other for other in sys.meta_path if other is not finder]
