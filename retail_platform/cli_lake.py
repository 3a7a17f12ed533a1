"""The commands `retail-platform lake ...`: look at the lake, keep it small, back it up.

Here: words in, words out, as in `cli.py`. Not here: any work of its own (`lakehouse/`).
"""

import json
import sys
from typing import Annotated, Any

import typer

from retail_platform.terminal import Json, current_settings, lakehouse_of, plain, print_facts, print_frame, progress

lake_app = typer.Typer(no_args_is_help=True, help="Look after the lake.")


@lake_app.command("snapshots")
def lake_snapshots(
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many of the newest.")] = None,
    as_json: Json = False,
) -> None:
    """Every state of the lake that can be read, with its time (UTC), run and message, newest first.

    Example: retail-platform lake snapshots --limit 20
    """
    print_frame(lakehouse_of(current_settings()).snapshots(limit).drop("changes"), as_json=as_json)


@lake_app.command("fsck")
def lake_fsck(
    deep: Annotated[bool, typer.Option("--deep", help="Read every value, which takes a while.")] = False,
    as_json: Json = False,
) -> None:
    """Whether every file of the catalog is there and whole, none is left over, and ledger and models agree with it.

    Example: retail-platform lake fsck --deep
    """
    import polars as pl

    from retail_platform.lakehouse.fsck import fsck

    findings = fsck(lakehouse_of(current_settings()), deep=deep)
    frame = pl.DataFrame([plain(finding) for finding in findings])
    print_frame(frame, as_json=as_json, empty="the lake is sound")
    if findings:
        raise typer.Exit(1)


@lake_app.command("maintain")
def lake_maintain(as_json: Json = False) -> None:
    """Let old snapshots expire, merge small files, remove what nothing uses. Writers wait; readers do not notice.

    Example: retail-platform lake maintain
    """
    from retail_platform.lakehouse.maintenance import maintain

    lakehouse = lakehouse_of(current_settings())
    if as_json:
        _print_record(plain(maintain(lakehouse)))
        return
    with progress("Maintaining the lake"):
        report = maintain(lakehouse)
    print_facts("Maintenance", [(name.replace("_", " "), str(value)) for name, value in plain(report).items()])


def _print_record(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record, default=str) + "\n")
