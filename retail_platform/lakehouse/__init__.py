"""Where tables live: the only room that speaks to DuckDB.

`Lakehouse` reads tables and commits writes; `Append`, `ReplaceTable` and `ReplaceSlices` say what a write is.
"""

from retail_platform.lakehouse.connection import LakeError
from retail_platform.lakehouse.lakehouse import Lakehouse
from retail_platform.lakehouse.writes import Append, Commit, Provenance, Query, ReplaceSlices, ReplaceTable, Write

__all__ = [
    "Append",
    "Commit",
    "LakeError",
    "Lakehouse",
    "Provenance",
    "Query",
    "ReplaceSlices",
    "ReplaceTable",
    "Write",
]
