"""Where tables live: the only room that speaks to DuckDB.

`Lakehouse` reads tables and commits writes; `Append`, `ReplaceTable` and `ReplaceSlices` say what a write is.
`save_model` and `load_model` keep the model versions, whose folders lie beside the tables.
"""

from retail_platform.lakehouse.connection import LakeError
from retail_platform.lakehouse.lakehouse import Lakehouse
from retail_platform.lakehouse.model_store import load_model, save_model
from retail_platform.lakehouse.writes import (
    Append,
    Commit,
    ParquetFiles,
    Provenance,
    Query,
    ReplaceSlices,
    ReplaceTable,
    Write,
)

__all__ = [
    "Append",
    "Commit",
    "LakeError",
    "Lakehouse",
    "ParquetFiles",
    "Provenance",
    "Query",
    "ReplaceSlices",
    "ReplaceTable",
    "Write",
    "load_model",
    "save_model",
]
