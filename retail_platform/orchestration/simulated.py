"""Which data are simulated and not measured, by the names of the files that they came in.

Here: the convention, and what a reader of a page is told. Not here: the simulation (`sources/`).
"""

import polars as pl

from retail_platform.lakehouse import Lakehouse

PREFIX = "simulated-"


def is_simulated(file_name: pl.Expr) -> pl.Expr:
    """Whether a landing file, by its name below the folder of its feed, holds simulated rows."""
    return file_name.str.split("/").list.last().str.starts_with(PREFIX)


def notes_on_simulated(lakehouse: Lakehouse) -> list[str]:
    """A sentence that names the simulated feeds; none where all were measured."""
    files = lakehouse.read("raw.ingested_files", columns=["feed", "file_name"])
    feeds = sorted(set(files.filter(is_simulated(pl.col("file_name")))["feed"]))
    return [f"Simulated, not measured: {', '.join(feeds)}."] if feeds else []
