"""`retail-platform quarantine`: the work on rejected rows.

Here: words in, words out. Not here: what the words do (`governance/quarantine.py`, `orchestration/replay.py`).
"""

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from retail_platform.terminal import Json, current_settings, lakehouse_of, out, print_frame, progress, stop

if TYPE_CHECKING:
    from retail_platform.governance.quarantine import Selection
    from retail_platform.lakehouse import Lakehouse

quarantine_app = typer.Typer(no_args_is_help=True, help="Rejected rows: look, judge again, accept as lost.")

FeedOption = Annotated[str | None, typer.Option("--feed", help="Rows of this feed.")]
FileOption = Annotated[str | None, typer.Option("--file", help="Rows of this file: its name, or its id.")]
ReasonOption = Annotated[
    list[str] | None, typer.Option("--reason", help="Rows with this reason, as `list` words it; may be repeated.")
]
RowOption = Annotated[int | None, typer.Option("--row", min=1, help="This row of the file.")]
DuplicatesOption = Annotated[
    bool, typer.Option("--duplicates", help="Repeated, superseded and withdrawn rows instead.")
]


@quarantine_app.command("list")
def quarantine_list(
    feed: FeedOption = None, file: FileOption = None, duplicates: DuplicatesOption = False, as_json: Json = False
) -> None:
    """How many rows were rejected and why; with --duplicates, what was repeated or corrected by which file.

    Example: retail-platform quarantine list --feed pos_sales
    """
    from retail_platform.governance.quarantine import by_reason, duplicates_by_file, rejected_rows
    from retail_platform.orchestration.replay import rows_of_withheld_days

    lakehouse = _ready_lake()
    selection = _selection(feed, file)
    if duplicates:
        print_frame(duplicates_by_file(lakehouse, selection), as_json=as_json, empty="no row stands for another one")
        return
    withheld = rows_of_withheld_days(lakehouse, feed)
    print_frame(by_reason(rejected_rows(lakehouse, selection, withheld)), as_json=as_json, empty="no row is rejected")


@quarantine_app.command("show")
def quarantine_show(
    feed: FeedOption = None,
    file: FileOption = None,
    row: RowOption = None,
    reason: ReasonOption = None,
    duplicates: DuplicatesOption = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many rows at most.")] = 10,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show personal values; the audit log says who did.")] = False,
    why: Annotated[str | None, typer.Option("--why", help="Why they are revealed, for the audit log.")] = None,
    as_json: Json = False,
) -> None:
    """The rows as their file had them, with all their reasons; with --duplicates, corrected rows and their corrections.

    Examples: retail-platform quarantine show --feed pos_sales --reason "quantity is not a number"
              retail-platform quarantine show --duplicates
    """
    from retail_platform.contracts import FEEDS
    from retail_platform.governance.audit import person_at_work
    from retail_platform.governance.quarantine import as_received, note_reveal, rejected_rows, replaced_rows
    from retail_platform.orchestration.replay import rows_of_withheld_days

    lakehouse = _ready_lake()
    selection = _selection(feed, file, row, reason)
    if duplicates:
        print_frame(
            replaced_rows(lakehouse, selection, limit), as_json=as_json, empty="no row was superseded or withdrawn"
        )
        return
    rows = rejected_rows(lakehouse, selection, rows_of_withheld_days(lakehouse, feed), whole=True)
    shown = rows.head(limit)
    if reveal and shown.height:
        note_reveal(lakehouse, shown, who=person_at_work(lakehouse.settings), why=why, now=_now())
    found = [
        {
            **{name: str(row[name]) for name in ("feed", "file_name", "partition_date", "state")},
            "row_number": row["row_number"],
            "reasons": row["reasons"],
            "row": as_received(row["row_json"], FEEDS[row["feed"]], reveal=reveal),
        }
        for row in shown.iter_rows(named=True)
    ]
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for facts in found:
        place = f"{facts['feed']}/{facts['file_name']} row {facts['row_number']}"
        values = ", ".join(f"{name}={value}" for name, value in facts["row"].items() if value is not None)
        _say(f"{place}, day {facts['partition_date']}, {facts['state']}")
        for words in facts["reasons"]:
            _say(f"  {words}")
        _say(f"  {values}\n")
    _say(f"{len(found):,} of {rows.height:,} rows")


@quarantine_app.command("waive")
def quarantine_waive(
    why: Annotated[str, typer.Option("--why", help="Why the rows are given up; the audit log keeps it.")],
    feed: FeedOption = None,
    file: FileOption = None,
    row: RowOption = None,
    reason: ReasonOption = None,
    as_json: Json = False,
) -> None:
    """Accept rejected rows as lost: they stay, but count no longer as open work or against the reject budget.

    With --reason, rows that have other reasons too are left alone.

    Example: retail-platform quarantine waive --file sales_2017-03-01.csv --why "test till of the training room"
    """
    from retail_platform.governance.audit import person_at_work
    from retail_platform.governance.quarantine import waive
    from retail_platform.orchestration.replay import rows_of_withheld_days

    if not why.strip():
        stop("say why the rows are given up, for example --why 'delivered again in sales_2.csv'")
    if not (feed or file or reason):
        stop("name the rows to be waived by --feed, --file or --reason")
    if row is not None and file is None:
        stop("--row names a row of a file; name the file with --file")
    lakehouse = _ready_lake()
    withheld = rows_of_withheld_days(lakehouse, feed)
    selection = _selection(feed, file, row, reason)
    waived, left = waive(
        lakehouse, selection, withheld, who=person_at_work(lakehouse.settings), why=why.strip(), now=_now()
    )
    if as_json:
        sys.stdout.write(json.dumps({"waived": waived, "left": left}) + "\n")
        return
    _say(f"{waived:,} rows waived" + (f"; {left:,} have other reasons too and were left" if left else ""))
    if withheld.height:
        _say("`retail-platform run` writes the withheld days that are within their budget now")


@quarantine_app.command("replay")
def quarantine_replay(
    feed: FeedOption = None,
    file: FileOption = None,
    reason: ReasonOption = None,
    read_again: Annotated[
        bool,
        typer.Option("--read-again", help="Read the landing file itself again, where a column was mapped wrongly."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge rejected rows again, after a fix of settings, masters or mapping, and say what became of them.

    Examples: retail-platform quarantine replay --feed pos_sales
              retail-platform quarantine replay --file sales_2017-03-01.csv --read-again
    """
    from retail_platform.governance.audit import person_at_work
    from retail_platform.orchestration.replay import replay

    if read_again and file is None:
        stop("--read-again reads a landing file again; name it with --file")
    lakehouse = _ready_lake()
    with progress("Judging rejected rows again", quiet=as_json) as say:
        done = replay(
            lakehouse,
            _selection(feed, file, None, reason),
            who=person_at_work(lakehouse.settings),
            read_again=read_again,
            progress=say,
        )
    print_frame(done.outcome, as_json=as_json, empty="no row is as selected")
    if done.complaints:
        stop("; ".join(done.complaints))


def _ready_lake() -> "Lakehouse":
    lakehouse = lakehouse_of(current_settings())
    # Says where there is no lake, instead of making one.
    lakehouse.snapshot_id()
    lakehouse.prepare()
    return lakehouse


def _selection(
    feed: str | None, file: str | None, row: int | None = None, reasons: list[str] | None = None
) -> "Selection":
    from retail_platform.governance.quarantine import Selection

    return Selection(feed, file, row, tuple(reasons or ()))


def _say(text: str) -> None:
    # Values of rows are no markup and are not to be wrapped.
    out.print(text, highlight=False, soft_wrap=True, markup=False)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
