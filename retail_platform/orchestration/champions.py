"""Which model version is in force: what training runs and people decide, and how it is written down.

Here: the stages in model.registry, the figures in model.decisions, promotion and rollback by hand. Not here: the
comparison of two models (`forecasting/challenge.py`), training (`assets/model.py`) and publication
(`assets/forecast.py`).

A decision is one transaction. It is made again where another one came between: a person may promote a version while a
run is still comparing.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import ValidationError

from retail_platform.contracts import TABLES
from retail_platform.contracts.forecast import NAIVE
from retail_platform.governance.audit import audit_entry
from retail_platform.lakehouse import Append, Commit, LakeError, Lakehouse, Provenance, Write
from retail_platform.lakehouse.locks import table_locks
from retail_platform.lakehouse.model_store import load_model, manifest_sha256
from retail_platform.orchestration.assets.features import forecast_version
from retail_platform.orchestration.partitions import WHOLE_PANEL, shard_names
from retail_platform.settings import ForecastSettings, Settings

if TYPE_CHECKING:
    from retail_platform.forecasting.challenge import Verdict
    from retail_platform.forecasting.models import Progress
    from retail_platform.forecasting.training import Gate, TrainedModel

REGISTRY, DECISIONS = TABLES["model.registry"], TABLES["model.decisions"]
LOCK = "champions"

OF_THE_PANEL = ("item_level", "horizon_days")
"""Settings by which the panel's rows mean something else: a model forecasts only the panel that it was trained on."""
NOT_OF_A_RECIPE = (
    *OF_THE_PANEL,
    "shards",
    "minimum_selling_days",
    "excluded_categories",
    "cutoffs",
    "models",
    "threads",
)
"""Settings that say what is forecast, how it is judged and on how many cores; the others say how a model learns."""

Row = dict[str, Any]


class ChampionError(Exception):
    """A decision that cannot be carried out; the message says why and what can be done."""


@dataclass(frozen=True)
class Candidate:
    """A version that was trained, with its registry facts, before anything was decided about it."""

    version: str
    shard: str
    recipe: Mapping[str, Any]
    gate: "Gate"
    trained_until: date
    manifest_sha256: str
    lake_snapshot: int


@dataclass(frozen=True)
class Evidence:
    """What a candidate is judged by: the panel that it learned from, and its backtest.

    `forecasts` are the backtest's of every model (model, cutoff, store_id, item_id, date, horizon, mean, units),
    `metrics` its metrics.
    """

    demand: pl.DataFrame
    history: pl.DataFrame
    forecasts: pl.DataFrame
    metrics: pl.DataFrame


@dataclass(frozen=True)
class Judgement:
    """What follows for a candidate and for the champion that it found; `figures` by opponent."""

    action: str
    promoted: bool
    reason: str
    figures: Mapping[str, pl.DataFrame]
    champion: Row | None = None
    leaving: Mapping[str, Any] = field(default_factory=dict)
    """Stage, reason and figures of the champion's new row, where it does not stay in force."""

    @property
    def in_force(self) -> str | None:
        """The version that is in force afterwards; null where the naive forecast is published."""
        return None if self.champion is None or self.leaving else str(self.champion["model_version"])


def panel_version(settings: Settings) -> str:
    """Digest of what a model must have been trained on to forecast the panel of these settings."""
    code = forecast_version(settings).partition("-")[0]
    facts = [settings.forecast.model_dump(mode="json", include=set(OF_THE_PANEL)), settings.country]
    return f"{code}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]}"


def recipe_of(kind: str, settings: ForecastSettings) -> dict[str, Any]:
    """Kind of model and everything that shapes how it learns: versions of one recipe differ by their data alone."""
    return {"model": kind, **settings.model_dump(mode="json", exclude=set(NOT_OF_A_RECIPE))}


def in_force(lakehouse: Lakehouse, shard: str) -> Row | None:
    """The registry's row of the champion of a shard; null where there is none."""
    champions = latest_stages(lakehouse, shard).filter(pl.col("stage") == "champion")
    return champions.row(0, named=True) if champions.height else None


def why_none_is_in_force(lakehouse: Lakehouse, shard: str) -> str:
    """In words, for a shard without a champion."""
    rejected = latest_stages(lakehouse, shard).filter(pl.col("stage") == "rejected")
    return str(rejected["reason"][0]) if rejected.height else "no model has been trained"


def latest_stages(lakehouse: Lakehouse, shard: str) -> pl.DataFrame:
    """The newest registry row of each version of a shard, newest first."""
    return lakehouse.query(
        "SELECT * FROM model.registry WHERE shard = ? "
        "QUALIFY row_number() OVER (PARTITION BY model_version ORDER BY changed_at DESC) = 1 "
        "ORDER BY changed_at DESC",
        [shard],
    )


def load_version(settings: Settings, row: Mapping[str, Any]) -> tuple["TrainedModel", dict[str, Any]]:
    """The trained model of a registry row and its manifest, every file checked.

    Raises `LakeError` where the folder is not what was registered, and `ChampionError` where this code cannot use it.
    """
    from retail_platform.forecasting.training import TrainedModel

    version = str(row["model_version"])
    if manifest_sha256(settings.models, version) != row["manifest_sha256"]:
        raise LakeError(
            f"the manifest of model {version} in {settings.models} is not the one that was registered; restore the "
            "folder from a backup, or train again (`retail-platform run --select group:model`)"
        )
    files, manifest = load_model(settings.models, version)
    try:
        return TrainedModel.from_files(files), manifest
    except (KeyError, ValueError) as other:
        raise ChampionError(f"model {version} cannot be used by this version of the platform: {other}") from None


def why_unusable(settings: Settings, row: Mapping[str, Any]) -> str | None:
    """Why a version cannot forecast the panel of these settings; null where it can."""
    try:
        _, manifest = load_version(settings, row)
    except (LakeError, ChampionError) as damaged:
        return str(damaged)
    return other_panel(settings, manifest)


def other_panel(settings: Settings, manifest: Mapping[str, Any]) -> str | None:
    """In words, where a version was trained for another panel than these settings make."""
    if manifest.get("panel_version") == panel_version(settings):
        return None
    return (
        f"model {manifest['model_version']} was trained under other forecast settings "
        f"({', '.join(OF_THE_PANEL)}, country) or by other code"
    )


def decide(
    lakehouse: Lakehouse,
    candidate: Candidate,
    evidence: Evidence,
    *,
    run_id: str,
    progress: "Progress",
) -> tuple[Judgement, Commit]:
    """Judge a trained version, and write what follows to model.registry and model.decisions."""
    settings = lakehouse.settings
    while True:
        champion = in_force(lakehouse, candidate.shard)
        judgement = judge(lakehouse, candidate, champion, evidence, progress)
        with table_locks(settings, [LOCK]):
            if _version(in_force(lakehouse, candidate.shard)) != _version(champion):
                progress("another decision came between; comparing again")
                continue
            now = _now()
            provenance = Provenance(
                REGISTRY.name,
                run_id,
                forecast_version(settings),
                "" if candidate.shard == WHOLE_PANEL else candidate.shard,
                {"lake": candidate.lake_snapshot},
            )
            return judgement, lakehouse.commit(_writes(candidate, judgement, f"run {run_id}", now), provenance)


def judge(
    lakehouse: Lakehouse, candidate: Candidate, champion: Row | None, evidence: Evidence, progress: "Progress"
) -> Judgement:
    """What is to follow for a candidate beside this champion; nothing is written."""
    from retail_platform.forecasting.challenge import compare
    from retail_platform.forecasting.training_set import horizon_blocks

    settings, gate = lakehouse.settings, candidate.gate
    own = evidence.forecasts.filter(pl.col("model") == candidate.recipe["model"])
    naive = evidence.forecasts.filter(pl.col("model") == NAIVE)
    # The gate itself asks for the mean alone; the figures say how sure it is.
    against_naive = compare(own, naive, evidence.demand, horizon_blocks(settings.forecast), settings.champion)
    figures = {NAIVE: against_naive.with_columns(guarded=pl.lit(value=False))}
    if champion is None:
        return Judgement("first", gate.passed, gate.text, figures)
    unusable = why_unusable(settings, champion)
    old_recipe = None if unusable else _recipe_of_version(settings, champion)
    if old_recipe is None:
        unusable = unusable or f"the manifest of model {champion['model_version']} names no recipe"
        reason = f"{gate.text}; no comparison with the champion: {unusable}"
        return Judgement("first", gate.passed, reason, figures, champion, _retired(candidate, promoted=gate.passed))
    if old_recipe == dict(candidate.recipe):
        return _refresh(lakehouse, candidate, champion, figures)
    try:
        old_gate, verdict = _challenge(settings, champion, old_recipe, evidence, own, progress)
    except (ValidationError, ChampionError) as other:
        reason = f"{gate.text}; no comparison with the champion {champion['model_version']}: {other}"
        return Judgement("first", gate.passed, reason, figures, champion, _retired(candidate, promoted=gate.passed))
    if verdict.same:
        return _refresh(lakehouse, candidate, champion, figures)
    figures[str(champion["model_version"])] = verdict.figures
    leaving = _retired(candidate, promoted=gate.passed and (verdict.won or not old_gate.passed))
    promoted, reason = bool(leaving), f"{verdict.text}; {gate.text}"
    if not promoted and not old_gate.passed:
        leaving = _fallen(old_gate)
    return Judgement("challenge", promoted, reason, figures, champion, leaving)


def promote(lakehouse: Lakehouse, version: str, *, who: str, why: str) -> tuple[Row, Row | None]:
    """Put a version in force by hand; the registry's rows of it and of the one that it replaces, if there is one.

    Raises `ChampionError` where the version is not known, is in force, does not beat seasonal naive, or cannot
    forecast this panel; `LakeError` where its folder is damaged.
    """
    with table_locks(lakehouse.settings, [LOCK]):
        chosen = _row_of(lakehouse, version)
        champion = in_force(lakehouse, chosen["shard"])
        if _version(champion) == version:
            raise ChampionError(f"{version} is in force already")
        _refuse_unfit(lakehouse.settings, chosen)
        _put_in_force(lakehouse, chosen, champion, action="promote", who=who, why=why)
    return chosen, champion


def rollback(lakehouse: Lakehouse, *, shard: str | None, who: str, why: str) -> tuple[Row, Row]:
    """Put the champion before the present one in force again; the registry's rows of both, the one in force first.

    Trainings of its recipe do not replace a champion that was gone back to: only a better challenger of another recipe
    does, or a person. Raises `ChampionError` where there is none to go back to or that was done already.
    """
    shard = _one_shard(lakehouse.settings, shard)
    with table_locks(lakehouse.settings, [LOCK]):
        champion = in_force(lakehouse, shard)
        if champion is None:
            raise ChampionError(
                f"no model is in force, the naive forecast is published: {why_none_is_in_force(lakehouse, shard)}"
            )
        champions = lakehouse.query(
            "SELECT model_version FROM model.registry WHERE shard = ? AND stage = 'champion' "
            "AND model_version <> ? ORDER BY changed_at DESC",
            [shard, champion["model_version"]],
        ).to_series()
        if _was_gone_back_to(lakehouse, champion):
            raise ChampionError(
                f"{champion['model_version']} is in force because of a rollback already; to go further back, promote "
                f"a version by name (`retail-platform models list` has {len(champions)} that were champions)"
            )
        if champions.is_empty():
            raise ChampionError(f"{champion['model_version']} is the first champion: there is none to go back to")
        chosen = _row_of(lakehouse, champions[0])
        _refuse_unfit(lakehouse.settings, chosen)
        _put_in_force(lakehouse, chosen, champion, action="rollback", who=who, why=why)
    return chosen, champion


def _refresh(
    lakehouse: Lakehouse, candidate: Candidate, champion: Row, figures: Mapping[str, pl.DataFrame]
) -> Judgement:
    """A candidate of the champion's own recipe, or of one that forecasts the same to the last bit: its backtest is the
    champion's too, so that there is nothing to compare, and the newer data decide."""
    gate, old = candidate.gate, str(champion["model_version"])
    same = f"same recipe as the champion {old}, which was trained until {champion['trained_until']}"
    if not gate.passed:
        return Judgement("refresh", False, f"{same}; {gate.text}", figures, champion, _fallen(gate))
    if _was_gone_back_to(lakehouse, champion):
        reason = (
            f"{same} and was gone back to by a person, so that it stays; `retail-platform models promote "
            f"{candidate.version} --why ...` ends that; {gate.text}"
        )
        return Judgement("refresh", False, reason, figures, champion)
    reason = f"{same}: the newer data decide; {gate.text}"
    return Judgement("refresh", True, reason, figures, champion, _retired(candidate, promoted=True))


def _challenge(
    settings: Settings,
    champion: Row,
    recipe: Mapping[str, Any],
    evidence: Evidence,
    own: pl.DataFrame,
    progress: "Progress",
) -> tuple["Gate", "Verdict"]:
    """The champion's recipe retrained at the cutoffs of the backtest, and the comparison with it."""
    from retail_platform.forecasting.backtest import run_backtest
    from retail_platform.forecasting.challenge import challenge
    from retail_platform.forecasting.models import MODELS
    from retail_platform.forecasting.training import beats_naive
    from retail_platform.forecasting.training_set import horizon_blocks

    kind, name = str(recipe["model"]), str(champion["model_version"])
    if kind not in MODELS:
        raise ChampionError(f"this version of the platform has no model {kind}")
    learning = {key: value for key, value in recipe.items() if key != "model"}
    rescored = ForecastSettings.model_validate({**settings.forecast.model_dump(mode="json"), **learning})
    progress(f"forecasting the backtest with the recipe of the champion {name}")
    backtest = run_backtest(evidence.demand, evidence.history, rescored, progress, models=[kind])
    naive = evidence.metrics.filter(pl.col("model") == NAIVE)
    metrics = pl.concat([backtest.metrics, naive.select(backtest.metrics.columns)])
    verdict = challenge(
        own,
        backtest.forecasts,
        evidence.demand,
        horizon_blocks(settings.forecast),
        settings.champion,
        name=f"the champion {name}",
    )
    return beats_naive(metrics, model=kind), verdict


def _recipe_of_version(settings: Settings, row: Row) -> dict[str, Any] | None:
    _, manifest = load_model(settings.models, str(row["model_version"]))
    recipe = manifest.get("recipe")
    return dict(recipe) if isinstance(recipe, dict) else None


def _retired(candidate: Candidate, *, promoted: bool) -> dict[str, Any]:
    return {"stage": "retired", "reason": f"replaced by {candidate.version}"} if promoted else {}


def _fallen(gate: "Gate") -> dict[str, Any]:
    """The champion's recipe does not beat seasonal naive on the newest days: it must not be published any more."""
    return {
        "stage": "rejected",
        "reason": gate.text,
        "wape": number(gate.wape),
        "naive_wape": number(gate.naive_wape),
    }


def _writes(candidate: Candidate, judgement: Judgement, by: str, now: datetime) -> list[Write]:
    gate = candidate.gate
    own = {
        "model_version": candidate.version,
        "shard": candidate.shard,
        "stage": "champion" if judgement.promoted else "rejected",
        "changed_at": now,
        "changed_by": by,
        "reason": judgement.reason,
        "trained_until": candidate.trained_until,
        "folder": candidate.version,
        "manifest_sha256": candidate.manifest_sha256,
        "lake_snapshot": candidate.lake_snapshot,
        "wape": number(gate.wape),
        "naive_wape": number(gate.naive_wape),
    }
    rows = [own]
    if judgement.champion is not None and judgement.leaving:
        rows.append({**judgement.champion, "changed_at": now, "changed_by": by, **judgement.leaving})
    facts = {
        "decision_id": candidate.version,
        "shard": candidate.shard,
        "decided_at": now,
        "decided_by": by,
        "action": judgement.action,
        "challenger": candidate.version,
        "in_force": judgement.promoted,
    }
    return [Append(REGISTRY, _registry_rows(rows)), Append(DECISIONS, _decision_rows(facts, judgement.figures))]


def _put_in_force(
    lakehouse: Lakehouse, chosen: Row, champion: Row | None, *, action: str, who: str, why: str
) -> Commit:
    now, version, before = _now(), str(chosen["model_version"]), _version(champion)
    entry = audit_entry(
        who=who,
        action=action,
        subject=f"model {version}",
        reason=why,
        details={"shard": chosen["shard"], "in_force_before": before, "in_force_now": version},
        decided_at=now,
    )
    by = f"audit {entry['audit_id'].item()}"
    change = {"changed_at": now, "changed_by": by}
    rows = [{**chosen, **change, "stage": "champion", "reason": f"{action} by hand: {why}"}]
    if champion is not None:
        rows.append({**champion, **change, "stage": "retired", "reason": f"{action} of {version} by hand: {why}"})
    facts = {
        "decision_id": entry["audit_id"].item(),
        "shard": chosen["shard"],
        "decided_at": now,
        "decided_by": by,
        "action": action,
        "challenger": version,
        "in_force": True,
    }
    nothing = pl.DataFrame([{"segment": "all", "metric": "wape", "guarded": False, "holds": True}])
    # By the name of the decisions, so that forecasts are older than it and the model is not newer than its features.
    provenance = Provenance(DECISIONS.name, by, partition="" if chosen["shard"] == WHOLE_PANEL else chosen["shard"])
    return lakehouse.commit(
        [
            Append(REGISTRY, _registry_rows(rows)),
            Append(DECISIONS, _decision_rows(facts, {before or NAIVE: nothing})),
            Append(TABLES["governance.audit_log"], entry),
        ],
        provenance,
    )


def _registry_rows(rows: Sequence[Row]) -> pl.DataFrame:
    return REGISTRY.validate(pl.DataFrame(rows, schema=REGISTRY.polars_schema))


def _decision_rows(facts: Mapping[str, Any], figures: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    rows = [{**facts, "opponent": opponent, **row} for opponent, frame in figures.items() for row in frame.to_dicts()]
    return DECISIONS.validate(pl.DataFrame(rows, schema=DECISIONS.polars_schema))


def _row_of(lakehouse: Lakehouse, version: str) -> Row:
    rows = lakehouse.read(REGISTRY.name, where="model_version = ?", parameters=[version]).sort("changed_at")
    if rows.is_empty():
        known = lakehouse.read(REGISTRY.name, columns=["model_version"]).to_series().unique().sort().to_list()
        close = get_close_matches(version, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "`retail-platform models list` names those there are"
        raise ChampionError(f"there is no model {version}; {hint}")
    return rows.row(-1, named=True)


def _refuse_unfit(settings: Settings, row: Row) -> None:
    version, shard = row["model_version"], row["shard"]
    if shard not in shard_names(settings):
        raise ChampionError(f"{version} was trained for {shard}; the settings know {', '.join(shard_names(settings))}")
    wape, naive = row["wape"], row["naive_wape"]
    if wape is None or naive is None or not wape < naive:
        figures = "its WAPE is not known" if wape is None or naive is None else f"WAPE {wape:.4f} against {naive:.4f}"
        raise ChampionError(
            f"{version} does not beat seasonal naive ({figures}), so that its forecasts would not be published"
        )
    _, manifest = load_version(settings, row)
    other = other_panel(settings, manifest)
    if other:
        raise ChampionError(f"{other}; it cannot forecast the panel of today's settings")


def _was_gone_back_to(lakehouse: Lakehouse, champion: Row) -> bool:
    """Whether the champion is in force because of a rollback, which a mere new training must not undo."""
    last = lakehouse.query(
        "SELECT action FROM model.decisions WHERE shard = ? AND challenger = ? AND in_force "
        "ORDER BY decided_at DESC LIMIT 1",
        [champion["shard"], champion["model_version"]],
    ).to_series()
    return last.to_list() == ["rollback"]


def _one_shard(settings: Settings, shard: str | None) -> str:
    names = shard_names(settings)
    if shard is None and len(names) > 1:
        raise ChampionError(f"say which shard with --shard: {', '.join(names)}")
    if shard is not None and shard not in names:
        raise ChampionError(f"there is no shard {shard}; the settings know {', '.join(names)}")
    return shard or names[0]


def _version(row: Row | None) -> str | None:
    return None if row is None else str(row["model_version"])


def number(value: float) -> float | None:
    """A figure that is not defined, such as the WAPE of days without a sale, is none at all."""
    return value if math.isfinite(value) else None


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
