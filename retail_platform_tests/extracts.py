"""What a lake would hold of a source that has taken in every extract in the landing zone, without a lake."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from retail_platform.contracts import FEEDS
from retail_platform.sources.extracts import TakenIn, extract_of, landed_extracts

SCHEMA = {
    "file_id": pl.String,
    "extracted_after": pl.String,
    "extracted_to": pl.String,
    "rows": pl.Int64,
    "ingested_at": pl.Int64,
}


def taken_in_from_landing(landing: Path, feed: str, source: str) -> TakenIn:
    """File ids are names, and the order of names is that of arrival."""
    files = {file.name: file for file in landed_extracts(landing, feed, source)}
    extracts = []
    for number, (name, file) in enumerate(files.items()):
        said = extract_of(file, name)
        assert said is not None
        extracts.append((name, said.after, said.to, pl.read_parquet(file).height, number))
    columns = dict.fromkeys(["file_id", *FEEDS[feed].column_names], pl.String)

    def rows_of(file_ids: Sequence[str]) -> pl.DataFrame:
        frames = [pl.read_parquet(files[name]).with_columns(file_id=pl.lit(name)) for name in file_ids]
        return pl.concat([pl.DataFrame(schema=columns), *frames], how="diagonal")

    return TakenIn(pl.DataFrame(extracts, SCHEMA, orient="row"), rows_of)
