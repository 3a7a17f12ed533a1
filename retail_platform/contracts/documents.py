"""Documents that are written from the contracts, so that they cannot say anything else.

Here: `docs/feeds.md` and `docs/tables.md`. Not here: the catalogue site and the data contracts (`governance/`).
"""

import csv
import io
import sys

import polars as pl

from retail_platform.contracts import FEEDS, TABLES, Feed, FeedColumn, Table

_TYPES: dict[type[pl.DataType], str] = {
    pl.String: "text",
    pl.Date: "date",
    pl.Datetime: "date and time",
    pl.Float64: "number",
    pl.Int64: "whole number",
}

_GENERAL = """\
# Feeds

What to put into the landing zone, and what becomes of it. This page is written from the contracts
(`retail_platform/contracts/feeds.py`) by

    python -m retail_platform.contracts.documents > docs/feeds.md

Only `pos_sales` is needed; each further feed makes the forecasts and the order proposals better.

## Where files go

Each feed has a folder of its own in the landing zone, by default `.retail/landing/`; folders in it are searched too.

```
.retail/landing/
  pos_sales/
    sales_2017-03-01.csv
    2016/sales_2016.parquet
  items/
    items.csv.gz
```

- Files that have not been seen yet are taken in, in the order of their names. A file is known by its content: the same
  content is not taken in again, neither under another name nor delivered once more under its own, which the run says;
  new content under an old name is.
- A file may hold any days, in any order.
- A file is taken in when it is quiet: `intake.quiet_seconds` (2 by default) after it was last written to. One that
  still changes is left, and asked for again. Better still, give a file its final name only when it is complete: write
  it as `.sales.csv` (names that begin with a dot are passed over) and rename it.
- Symbolic links, pipes and files with other endings are not taken in. Every file that was left out stands in
  `raw.files_left_out` with the reason; `retail-platform ingest` lists them, and says what lies beside the folders of
  the feeds.

## How files are written

| | |
| --- | --- |
| CSV | ending `.csv`, or `.csv.gz` compressed with gzip; a header with the column names, in any order |
| CSV fields | between commas; in `"` where they hold a comma, a quotation mark (doubled) or a line break |
| JSON Lines | ending `.jsonl` or `.ndjson`, with `.gz` where compressed; one object per line, keys as the columns |
| Parquet | ending `.parquet`; columns of text, numbers, dates or times |
| encoding of text | UTF-8, with or without byte order mark; another by setting |
| date | `2017-03-01`; a time after it is left out, and counted |
| date and time | `2017-03-01T18:22:05`, or with a blank for the T; fractions of a second optional; no time zone |
| number | point as the decimal sign, no thousands separator: `1234.5` |
| whole number | `3`; `3.0` is read as 3, and counted |
| missing value | empty field; words such as `NULL` are text like any other |

Blanks around a value are removed, and counted. Nothing else is repaired, and nothing guessed: `03/04/2017` is no date
here, and `1,5` no number.

## Other column names, delimiters and encodings

Where your files differ, say so in `retail.toml` instead of rewriting the files. To the left stands the name on this
page, to the right the one in the files:

```toml
[feeds.pos_sales]
delimiter = ";"
encoding = "cp1252"                  # utf-16, latin-1 ...

[feeds.pos_sales.columns]
business_date = "trading_day"
item_id = "sku"

[feeds.pos_sales.extra_columns]
till = "text"                        # a column that this page does not know
```

Optional columns may be absent. Columns that this page does not know are not taken in, and the run lists them, unless
`extra_columns` admits them: then the raw table has them too, as text, and the version of the feed's contract, which
stands beside each feed below and with every file in `raw.ingested_files`, names them (`1.0+till`).

## When columns change

The columns of every file are kept with it in the ledger and compared, before anything is written, with this page and
with the last file of the feed. A column that is gone, has probably been renamed, has become text, or of which no value
can be read is an alert in `monitoring.alerts`; a new column and another order are notes of the run. Each says what to
do. A file without a required column is refused.

## Other numbers, dates and clocks

The form of a feed's numbers and dates is declared, never guessed; a text that is not of that form is rejected with the
form in its reason. Raw tables keep the text as it came, so that a wrong declaration can be mended.

```toml
[feeds.pos_sales]
decimal = ","                                # 1234,5
thousands = "."                              # 1.234,5 as well
date_format = "%d.%m.%Y"                     # 01.03.2017
datetime_format = "%d.%m.%Y %H:%M:%S"        # 01.03.2017 18:22:05
time_zone = "UTC"
business_date_from = "sold_at"
```

- Formats are made of `%Y` or `%y`, `%m`, `%-m` or `%b`, `%d` or `%-d`, `%H`, `%-H` or `%I` with `%p`, `%M`, `%S`. A
  text is read only where its value would be written just so: `1.3.2017` is `%-d.%-m.%Y`.
- `time_zone` says whose clock the times show: an IANA name such as `UTC` or `Europe/Berlin`, or `offset` where each
  ends with its own, as `2017-03-01T18:22:05+01:00` does. They become times on the store's clock, by the time zone in
  `stores`; a row of a store without one is rejected until it has one. Without `time_zone` they are the store's already.
- A time that the declared clock shows twice or never, in the nights when it is changed, is rejected; in a store of the
  same zone the doubled hour is kept as it stands.
- With `business_date_from` the files need no `business_date`: it is the day on the store's clock.

## What happens to bad input

- **A broken file** is refused as a whole, and the run names it with the problem and the remedy: a required column is
  missing, a column name stands twice, a row has more or fewer fields than the header, the text is not of its encoding
  or holds NUL characters, the file is cut off, or is larger, once it is unpacked, than `intake` in the settings allows.
  The other files are taken in. Mend the file and land it again.
- **A file that harms its reader** is a broken file too: files are copied under a name of our own and parsed in a
  process of their own, with limits on memory, time and size.
- **An empty file**, or one with a header only, is noted as empty.
- **A bad row** does not stop the others. It is kept whole in `quarantine.rejected_rows` with every reason, such as
  `quantity: 'abc' is not a number` or `store_id: 'X9' is not in clean.stores`. Stores and items are looked up only once
  a master of them has arrived.
- **A day that cannot be**: a business date after the day of arrival, or before `start_date` in the settings, is such a
  reason. Once the day has come, `retail-platform quarantine replay` judges the row again.
- **Too many bad rows**: a day with more than `reject_budget` of its feed is withheld, what was clean before stays, and
  the run fails. [Rejected rows](quarantine.md) says how to look at them, mend them or give them up.
- **A repeated row** is kept once; the repetition is noted in `quarantine.duplicate_rows`.
- **A correction** is a file that arrives later and has rows with the same key: they take the place of the earlier ones,
  which are noted in `quarantine.duplicate_rows`. A row that the later file leaves out stays as it was, unless the feed
  says otherwise (below). To correct a receipt whose lines have no `line_number`, land all of its lines in their old
  order.
- **A contradiction**, two rows of one file with the same key and other values, cannot be decided: the first row counts,
  the other is rejected.

Rows in = clean rows + rejected rows + duplicates, for every file; each run checks it. What arrived stays in the `raw`
tables as it was.

## Corrections of a whole day

Where each file of `pos_sales` or `inventory` is complete for the stores and days that are in it, say so. Then a later
file replaces the earlier ones store-day by store-day, and a line that it leaves out is gone:

```toml
[feeds.pos_sales]
replaces = "store_day"     # "row" by default
```

- **Which file counts.** For each store and day, the file that arrived last, whatever its name or the times in it. Files
  that wait together are taken in by name, so `sales_2017-03-01_v2.csv` corrects `sales_2017-03-01.csv`. The stores and
  days that are not in it stay as they were.
- **What becomes of the earlier rows.** Every one, also those that had been rejected, becomes a duplicate of a kind:
  `repeated` or `superseded` where the new file has a good row of the same key, `withdrawn` where it has none and where
  the earlier row had been rejected.
  `kept_file_id` names the file that counts. `retail-platform quarantine list --duplicates` counts them by file.
- **A bad correction replaces nothing.** A later file counts for a store and day if a row of it is good there, and no
  larger a share of them than `reject_budget` is rejected and not waived; `tolerated_rejects` excuses none, for there is
  something better to keep. Otherwise the earlier file stays whole, and the good rows of the later one are rejected with
  that reason. Where no file is as good as that, the first one stays.
- **A day in several files is not complete in one.** Parts of one store's day would replace each other, though they come
  together: leave `replaces` out. One file per store is fine.
- **To go back to an earlier content**, land it with a change, such as another order of rows: the same content is not
  taken in twice.
- **A row whose store or day cannot be read** belongs to no store-day. It is rejected, replaces nothing and is not
  replaced. When a replay moves it to its day, it comes there as a row of its file, with the file's time of arrival.
- **A change of this setting** has the days cleaned again that it makes a difference to, by the next run.

A feed with a [source](sources.md) cannot say this: extracts hold only what is new.
"""

_TABLES_GENERAL = """\
# Tables

Every table of the lake. This page is written from the contracts (`retail_platform/contracts/`) by

    python -m retail_platform.contracts.documents tables > docs/tables.md

The asset `clean/sales` writes the table `clean.sales`, and so on. Some tables are written by several assets, each
together with its own rows: the ledger and the files left out by every raw table, the quarantine by every clean one,
the alerts by raw tables and forecasts.

*Written* says what a write does to the rows that are there: it replaces all of them, replaces those with the same
values in the columns named, or leaves them and appends. The columns, with types, units and rules, are on the asset's
page in the Dagster UI.
"""


def feeds_markdown() -> str:
    """The text of `docs/feeds.md`: general rules, then each feed with its columns and an example to run."""
    return "\n".join([_GENERAL, *(_feed_section(feed) for feed in FEEDS.values())])


def tables_markdown() -> str:
    """The text of `docs/tables.md`: every table by schema, with its grain and how it is written."""
    schemas = dict.fromkeys(table.schema_name for table in TABLES.values())
    return "\n".join([_TABLES_GENERAL, *(_schema_section(schema) for schema in schemas)])


def example_csv(feed: Feed) -> str:
    """A file of the feed with one row, made of the examples of its columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(feed.column_names)
    writer.writerow([c.example for c in feed.columns])
    return text.getvalue()


def _feed_section(feed: Feed) -> str:
    folder = f".retail/landing/{feed.name}"
    key = ", ".join(f"`{name}`" for name in TABLES[feed.clean_table].grain)
    return f"""\
## {feed.name}

{feed.description}

Becomes `{feed.clean_table}`. Key of a row: {key}. Owner: {feed.owner}. Version: {feed.version}.

| column | type | unit | required | description |
| --- | --- | --- | --- | --- |
{"".join(_column_row(c) for c in feed.columns)}
```sh
mkdir -p {folder}
cat > {folder}/example.csv <<'END'
{example_csv(feed)}END
retail-platform ingest {feed.name}
```
"""


def _schema_section(schema: str) -> str:
    tables = [table for table in TABLES.values() if table.schema_name == schema]
    return f"""\
## {schema}

| table | one row per | written | owner | class | retention |
| --- | --- | --- | --- | --- | --- |
{"".join(_table_row(table) for table in tables)}
{"".join(_table_description(table) for table in tables)}"""


def _table_row(table: Table) -> str:
    cells = (
        f"`{table.name}`",
        ", ".join(table.grain),
        _written(table),
        table.owner,
        table.classification,
        "without limit" if table.retention_days is None else f"{table.retention_days} days",
    )
    return f"| {' | '.join(cells)} |\n"


def _table_description(table: Table) -> str:
    return f"- `{table.name}`: {table.description}\n"


def _written(table: Table) -> str:
    if table.replaced_by is None:
        return "appended"
    return f"replaced by {', '.join(table.replaced_by)}" if table.replaced_by else "replaced whole"


def _column_row(column: FeedColumn) -> str:
    sensitive = "" if column.classification in ("public", "internal") else f" ({column.classification})"
    cells = (
        f"`{column.name}`",
        _TYPES[type(column.dtype)],
        column.unit or "",
        "yes" if column.required else "",
        f"{column.description}{sensitive}",
    )
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    sys.stdout.write(tables_markdown() if sys.argv[1:] == ["tables"] else feeds_markdown())
