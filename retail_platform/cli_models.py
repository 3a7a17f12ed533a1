"""`retail-platform models`: trained versions, and which of them is in force.

Here: words in, words out. Not here: what the words do (`orchestration/champions.py`, `reproduction.py`).
"""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from retail_platform.terminal import Json, current_settings, lakehouse_of, out, print_frame, progress, stop

if TYPE_CHECKING:
    from retail_platform.lakehouse import Lakehouse

models_app = typer.Typer(no_args_is_help=True, help="Trained model versions, and which of them is in force.")

Version = Annotated[str, typer.Argument(help="Model version, as `models list` names it.")]
Why = Annotated[str, typer.Option("--why", help="Why, for the registry and the audit log.")]


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """Every trained version with its stages and its figures, newest first.

    Example: retail-platform models list
    """
    frame = lakehouse_of(current_settings()).query(
        "SELECT model_version, shard, stage, changed_at, trained_until, wape, naive_wape, reason FROM model.registry "
        "ORDER BY changed_at DESC"
    )
    print_frame(frame, as_json=as_json, empty="no model has been trained yet; `retail-platform run` trains one")


@models_app.command("show")
def models_show(version: Version) -> None:
    """The manifest of a version, after its files were checked against it, its card, its stages and decisions.

    Example: retail-platform models show 2017-12-31-all-1a2b3c4d
    """
    from retail_platform.lakehouse.model_store import load_model
    from retail_platform.orchestration.cards import card_of

    settings = current_settings()
    _, manifest = load_model(settings.models, version)
    lakehouse = lakehouse_of(settings)
    stages = lakehouse.query(
        "SELECT stage, changed_at, changed_by, reason, wape, naive_wape FROM model.registry WHERE model_version = ? "
        "ORDER BY changed_at",
        [version],
    )
    decisions = lakehouse.query(
        "SELECT decided_at, action, challenger, opponent, in_force, segment, metric, opponent_value, challenger_value, "
        "improvement, standard_error, guarded, holds FROM model.decisions WHERE $1 IN (challenger, opponent) "
        "ORDER BY decided_at, opponent, segment, metric",
        [version],
    )
    card = card_of(settings, version)
    shown = {**manifest, "card": card and str(card), "stages": stages.to_dicts(), "decisions": decisions.to_dicts()}
    out.print_json(json.dumps(shown, default=str))


@models_app.command("promote")
def models_promote(version: Version, why: Why, as_json: Json = False) -> None:
    """Put a version in force by hand. It must beat seasonal naive, and be able to forecast today's panel.

    Example: retail-platform models promote 2017-12-31-all-1a2b3c4d --why "the new stores need it"
    """
    from retail_platform.governance.audit import person_at_work
    from retail_platform.orchestration.cards import show_card
    from retail_platform.orchestration.champions import promote
    from retail_platform.orchestration.runner import note_decision

    lakehouse = _ready_lake()
    now, replaced = promote(lakehouse, version, who=person_at_work(lakehouse.settings), why=_said(why))
    note_decision(lakehouse.settings, f"{version} promoted by hand")
    show_card(lakehouse.settings, version, now["shard"])
    _show_change(version, replaced["model_version"] if replaced else None, as_json=as_json)


@models_app.command("rollback")
def models_rollback(
    why: Why,
    shard: Annotated[str | None, typer.Option(help="Group of stores, where there are several.")] = None,
    as_json: Json = False,
) -> None:
    """Put the champion before the present one in force again.

    Example: retail-platform models rollback --why "the weekend was forecast far too high"
    """
    from retail_platform.governance.audit import person_at_work
    from retail_platform.orchestration.cards import show_card
    from retail_platform.orchestration.champions import rollback
    from retail_platform.orchestration.runner import note_decision

    lakehouse = _ready_lake()
    now, before = rollback(lakehouse, shard=shard, who=person_at_work(lakehouse.settings), why=_said(why))
    note_decision(lakehouse.settings, f"rolled back to {now['model_version']} by hand")
    show_card(lakehouse.settings, now["model_version"], now["shard"])
    _show_change(now["model_version"], before["model_version"], as_json=as_json)


@models_app.command("reproduce")
def models_reproduce(version: Version, as_json: Json = False) -> None:
    """Train a version again from its manifest and the lake as it was, and compare every prediction.

    Exit code 0 where they are equal to the last bit, 1 where they are not; what is not as it was then is listed.

    Example: retail-platform models reproduce 2017-12-31-all-1a2b3c4d
    """
    from retail_platform.orchestration.reproduction import reproduce

    lakehouse = lakehouse_of(current_settings())
    with progress("Training again", quiet=as_json) as say:
        done = reproduce(lakehouse, version, say)
    if as_json:
        sys.stdout.write(json.dumps({**asdict(done), "equal": done.equal}) + "\n")
    elif done.equal:
        out.print(f"{done.predictions:,} predictions are equal to the last bit", highlight=False)
    if not done.equal:
        changed = "; ".join(done.changed) or "nothing that is recorded has changed since it was trained"
        stop(
            f"{version} is not reproduced: of {done.predictions:,} predictions the largest difference is "
            f"{done.largest_difference:g} units, and {', '.join(done.differing_files) or 'no file'} differs; {changed}"
        )


def _said(why: str) -> str:
    if not why.strip():
        stop("say why, for example --why 'the weekend was forecast far too high'")
    return why.strip()


def _ready_lake() -> "Lakehouse":
    lakehouse = lakehouse_of(current_settings())
    # Says where there is no lake, instead of making one.
    lakehouse.snapshot_id()
    lakehouse.prepare()
    return lakehouse


def _show_change(now: str, before: str | None, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"in_force": now, "before": before}) + "\n")
        return
    instead = f"instead of {before}" if before else "where the naive forecast was published"
    out.print(f"{now} is in force {instead}; `retail-platform run` forecasts with it", highlight=False, soft_wrap=True)
