"""What every table promises: the ground floor, which every other room may read.

`TABLES` maps a table's name to its contract and `FEEDS` a feed's name to the shape of its landing files.
Schemas, checks, DDL, the columns shown in Dagster and the data dictionary all derive from these two.
"""

from retail_platform.contracts.pandera_alone import import_pandera

# Before the contracts, which import it themselves.
import_pandera()

from retail_platform.contracts import (  # noqa: E402
    clean,
    features,
    feeds,
    forecast,
    governance,
    monitoring,
    quarantine,
    storage,
)
from retail_platform.contracts.feeds import FEEDS, Feed, FeedColumn  # noqa: E402
from retail_platform.contracts.table import TABLES, Column, ContractBroken, RowRule, Table  # noqa: E402

__all__ = [
    "FEEDS",
    "TABLES",
    "Column",
    "ContractBroken",
    "Feed",
    "FeedColumn",
    "RowRule",
    "Table",
    "clean",
    "features",
    "feeds",
    "forecast",
    "governance",
    "monitoring",
    "quarantine",
    "storage",
]
