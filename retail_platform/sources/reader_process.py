"""The child process that parses landing files: reads jobs, writes Parquet files of text, and may die of a bad file.

Here: its limits, and the loop from job to answer. Not here: the formats (`formats.py`), and who asks (`reading.py`).

A parser may be crashed or blown up by the file that it reads. In a process of its own, without secrets in its
environment, with a limit on memory, time, open files and file size, and where the kernel allows it without network,
that is a refused file and not a dead run.

Jobs come as lines of JSON on standard input, answers leave as lines of JSON on what was standard output.
"""

import ctypes
import errno
import json
import os
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from retail_platform.cleaning.text import own_day
from retail_platform.contracts.feeds import FEEDS, Feed, raw_table
from retail_platform.settings import FeedSettings
from retail_platform.sources.formats import Caps, Job, Refusal, counted, open_batches

READY = "ready"
"""What it says once it can take jobs. A death before is no file's fault."""

_NEW_USER_NAMESPACE, _NEW_NETWORK_NAMESPACE = 0x1000_0000, 0x4000_0000


def main() -> None:
    """Answer jobs until standard input ends."""
    _without_network()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What a library prints must not be taken for an answer.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    limits = json.loads(sys.stdin.readline())
    _limit(**limits)
    answers.write(READY + "\n")
    answers.flush()
    for line in sys.stdin:
        _limit_time(limits["seconds"])
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _without_network() -> None:
    """Leave for an empty network of our own; without the right to, or on another kernel, stay."""
    with suppress(AttributeError, OSError):
        unshare = ctypes.CDLL(None).unshare
        if unshare(_NEW_NETWORK_NAMESPACE) != 0:
            unshare(_NEW_USER_NAMESPACE | _NEW_NETWORK_NAMESPACE)


def _limit(*, memory_bytes: int, file_bytes: int, open_files: int, seconds: int) -> None:
    in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + memory_bytes,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes,) * 2)
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(open_files, most_files),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_time(seconds)


def _limit_time(seconds: int) -> None:
    """Processor time from now on; a process whose parent has died ends by it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return _read(request)
    except Refusal as refusal:
        return {"problem": refusal.problem, "remedy": refusal.remedy}
    except (MemoryError, pa.ArrowMemoryError):
        return {"lack": "memory"}
    except OSError as error:
        if error.errno == errno.EFBIG:
            return {
                "problem": "too large once it is unpacked",
                "remedy": "Split it, or raise intake.max_expanded_bytes.",
            }
        return {"failure": error.strerror or str(error)}


def _read(request: dict[str, Any]) -> dict[str, Any]:
    form = FeedSettings.model_validate(request["form"])
    job = Job(**{**request["job"], "form": form, "caps": Caps(**request["job"]["caps"])})
    batches = open_batches(job)
    if job.format != "jsonl" and not set(request["required"]) <= {name for name, _ in batches.columns}:
        return {"columns": batches.columns, "rows": 0}
    rows = _with_provenance(counted(batches.rows, job.caps), FEEDS[request["feed"]], form, request["provenance"])
    facts = _write(rows, Path(request["output"]))
    return {"columns": batches.columns, **facts}


def _with_provenance(
    batches: Iterator[pl.DataFrame], feed: Feed, form: FeedSettings, provenance: dict[str, Any]
) -> Iterator[pa.Table]:
    """Batches in the shape of the raw table: `row_number` counts data rows from 1 in file order."""
    # Values become columns by way of Polars: Arrow would import pandas to look whether they are of its types.
    file_id = pl.Series([provenance["file_id"]]).to_arrow().cast(pa.string())
    arrived = datetime.fromisoformat(provenance["ingested_at"])
    columns = raw_table(feed, form.extra_columns).polars_schema.names()
    before = 0
    for batch in batches:
        text = batch.to_arrow()
        _refuse_nul(text)
        the_only_one = pl.repeat(0, batch.height, dtype=pl.Int32, eager=True).to_arrow()
        numbers = pl.int_range(before + 1, before + 1 + batch.height, dtype=pl.Int64, eager=True)
        arrivals = pl.repeat(arrived, batch.height, dtype=pl.Datetime("us"), eager=True)
        table = (
            text.append_column("file_id", pa.DictionaryArray.from_arrays(the_only_one, file_id))
            .append_column("row_number", numbers.to_arrow())
            .append_column("partition_date", _partition_dates(batch, feed, form, provenance).to_arrow())
            .append_column("ingested_at", arrivals.to_arrow())
        )
        yield table.select(columns)
        before += batch.height


def _partition_dates(batch: pl.DataFrame, feed: Feed, form: FeedSettings, provenance: dict[str, Any]) -> pl.Series:
    """The partition of every row: its own day where that is readable and accepted, else today."""
    today, first_date = (date.fromisoformat(provenance[name]) for name in ("today", "first_date"))
    if feed.date_column is None:
        return pl.repeat(today, batch.height, dtype=pl.Date, eager=True)
    day = own_day(feed, form, provenance["store_time_zones"])
    partition = pl.when(day.is_between(first_date, today)).then(day).otherwise(pl.lit(today, pl.Date))
    if set(day.meta.root_names()) != {feed.date_column}:
        return batch.select(partition.alias("day")).to_series()
    # A file has few days and many rows: each text is read once.
    texts = batch.select(pl.col(feed.date_column).unique())
    days = texts.select(partition.alias("day")).to_series()
    return batch[feed.date_column].replace_strict(texts.to_series(), days, return_dtype=pl.Date)


def _refuse_nul(text: pa.Table) -> None:
    """Refuse what the lake cannot keep: in a column's statistics, a NUL ends the statement that asks the catalog."""
    for name in text.column_names:
        for chunk in text.column(name).chunks:
            content = chunk.buffers()[-1]
            if content is not None and b"\0" in content.to_pybytes():
                raise Refusal(f"NUL characters in the column {name}", "Leave them out.")


def _write(tables: Iterator[pa.Table], output: Path) -> dict[str, Any]:
    """Write the tables as one Parquet file, one being written while the next is parsed."""
    rows = 0
    days: list[date] = []
    under_way: Future[None] | None = None
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        pool = ThreadPoolExecutor(1)
        for table in tables:
            if table.num_rows:
                rows += table.num_rows
                days += pc.min_max(table["partition_date"]).as_py().values()
            if writer is None:
                # As the lake keeps its own files: a large one becomes a file of the raw table as it is.
                writer = pq.ParquetWriter(
                    output,
                    table.schema,
                    compression="zstd",
                    use_dictionary=[name for name in table.column_names if name != "row_number"],
                    column_encoding={"row_number": "DELTA_BINARY_PACKED"},
                    store_schema=False,
                )
                # Entered in this order, the pool ends before the writer is closed: it must not write to a closed one.
                stack.enter_context(writer)
                stack.enter_context(pool)
            if under_way:
                under_way.result()
            under_way = pool.submit(writer.write_table, table)
        if under_way:
            under_way.result()
    return {"rows": rows, "first_date": str(min(days)) if days else None, "last_date": str(max(days)) if days else None}


if __name__ == "__main__":
    main()
