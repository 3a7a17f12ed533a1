"""The commands `retail-platform lake ...`: look at the lake, keep it small, back it up.

Here: words in, words out, as in `cli.py`. Not here: any work of its own (`lakehouse/`).
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from retail_platform.terminal import (
    Json,
    current_settings,
    err,
    lakehouse_of,
    out,
    plain,
    print_facts,
    print_frame,
    progress,
)

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
    with progress("Maintaining the lake") if not as_json else nullcontext():
        report = maintain(lakehouse)
    _print_record("Maintenance", plain(report), as_json=as_json)


@lake_app.command("backup")
def lake_backup(
    destination: Annotated[Path, typer.Argument(help="Folder for backups, on another disk; earlier ones are kept.")],
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Leave out customer.key and retail.toml.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Copy the lake as of this moment, with models, settings and customer key, while others write.

    Example: retail-platform lake backup /mnt/backup/retail
    """
    from retail_platform.lakehouse.backup import back_up

    lakehouse = lakehouse_of(current_settings())
    with progress("Copying the lake") if not as_json else nullcontext():
        made = back_up(lakehouse, destination.absolute(), secrets=not without_secrets)
    _print_record("Backup", plain(made) | {"secrets": ", ".join(made.secrets)}, as_json=as_json)
    if not as_json and made.secrets:
        out.print(f"It holds {', '.join(made.secrets)}: keep it where only you can read it.", highlight=False)


@lake_app.command("restore")
def lake_restore(
    source: Annotated[Path, typer.Argument(help="Folder that holds backups.")],
    name: Annotated[str | None, typer.Option(help="Which backup; the newest where none is named.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare every file with its SHA-256.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Set a lake that is there aside, and keep it.")] = False,
    as_json: Json = False,
) -> None:
    """Make the lake of a backup in a home without one; catalog and data go to where the settings have them.

    Example: retail-platform lake restore /mnt/backup/retail
    """
    from retail_platform.lakehouse.backup import restore, verify

    lakehouse = lakehouse_of(current_settings())
    with progress("Comparing and copying the backup") if not as_json else nullcontext():
        if check:
            chosen, manifest = verify(source.absolute(), name)
            record = {
                "name": chosen,
                "snapshot": manifest.snapshot,
                "made_at": manifest.made_at,
                "files": len(manifest.data),
            }
            findings = []
        else:
            restored = restore(lakehouse, source.absolute(), name=name, force=force)
            record, findings = plain(restored) | {"findings": len(restored.findings)}, list(restored.findings)
    _print_record("Backup is whole" if check else "Restored", record, as_json=as_json)
    for finding in findings:
        err.print(finding.message, highlight=False, soft_wrap=True)
    if findings:
        raise typer.Exit(1)


def _print_record(title: str, record: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(record, default=str) + "\n")
    else:
        print_facts(title, [(label.replace("_", " "), str(value)) for label, value in record.items()])
