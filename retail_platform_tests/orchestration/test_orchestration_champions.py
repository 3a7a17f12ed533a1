"""Champion and challenger: what trainings and people decide, how it is written down, and what is published after it."""

import json
import shutil
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Append, LakeError
from retail_platform.orchestration import champions
from retail_platform.orchestration.build import build_definitions
from retail_platform.orchestration.champions import ChampionError, in_force, promote, rollback
from retail_platform.orchestration.runner import SCIENCE, instance_of, materialize
from retail_platform.orchestration.staleness import last_commits, stale_keys
from retail_platform_tests.shell import Shell
from retail_platform_tests.simulated_retailer import Retailer
from retail_platform_tests.small_models import BY, STRONG, WEAK, SmallModels

REGISTRY = TABLES["model.registry"]
PERSON = {"who": "Ada", "why": "the weekend was forecast far too high"}


def champion(models: SmallModels | Retailer) -> str | None:
    row = in_force(models.lake, "all")
    return None if row is None else str(row["model_version"])


def stages(models: SmallModels, version: str) -> list[str]:
    rows = models.lake.read("model.registry", where="model_version = ?", parameters=[version])
    return rows.sort("changed_at")["stage"].to_list()


def decisions(models: SmallModels | Retailer, version: str) -> pl.DataFrame:
    return models.lake.read("model.decisions", where="challenger = ?", parameters=[version]).sort("decided_at")


def against(found: pl.DataFrame, opponent: str) -> dict[str, Any]:
    """The figures over everything against an opponent."""
    return found.filter(opponent=opponent, segment="all", metric="wape").row(0, named=True)


def write_stage(models: SmallModels | Retailer, version: str, **changes: Any) -> None:
    row = models.lake.read("model.registry", where="model_version = ?", parameters=[version]).row(0, named=True)
    rows = pl.DataFrame([{**row, "changed_at": champions._now(), **changes}], schema=REGISTRY.polars_schema)
    models.lake.commit([Append(REGISTRY, rows)], BY)


def test_the_first_version_is_judged_by_the_gate_alone(two_champions: SmallModels) -> None:
    first = two_champions.trained[0]
    found = decisions(two_champions, first)
    assert set(found.select("action", "opponent", "in_force").iter_rows()) == {("first", "seasonal_naive", True)}
    assert stages(two_champions, first)[0] == "champion"
    overall = against(found, "seasonal_naive")
    registered = two_champions.lake.read("model.registry").row(0, named=True)
    # The registry has the mean of the cutoffs' WAPEs, the decision that of all their days.
    assert overall["challenger_value"] == pytest.approx(registered["wape"], abs=0.01)
    assert overall["improvement"] > 2 * overall["standard_error"] > 0
    assert (overall["series"], overall["cutoffs"]) == (10, 3)


def test_a_version_of_the_same_recipe_refreshes_the_champion(two_champions: SmallModels) -> None:
    first, second = two_champions.trained
    assert champion(two_champions) == second
    assert (stages(two_champions, first), stages(two_champions, second)) == (["champion", "retired"], ["champion"])
    assert set(decisions(two_champions, second)["action"]) == {"refresh"}


def test_a_recipe_that_differs_in_words_alone_refreshes_the_champion(models: SmallModels) -> None:
    more_than_there_are = STRONG.model_copy(update={"training_rows": 500_000})
    made = models.using(more_than_there_are).train()
    assert (made.judgement.action, made.judgement.promoted) == ("refresh", True)


def test_a_challenger_of_another_recipe_takes_over_only_where_it_is_better_beyond_doubt(models: SmallModels) -> None:
    _, second = models.trained
    made = models.using(WEAK).train()
    assert (champion(models), stages(models, made.version)) == (second, ["rejected"])
    assert f"not better than the champion {second}" in made.judgement.reason
    found = decisions(models, made.version)
    assert set(found["action"]) == {"challenge"}
    assert set(found["opponent"]) == {"seasonal_naive", second}
    # The champion's recipe on the same cutoffs gives the figures with which it was registered.
    overall = against(found, second)
    assert overall["opponent_value"] == against(decisions(models, second), "seasonal_naive")["challenger_value"]
    assert overall["improvement"] < 0
    assert set(found.filter(opponent=second, guarded=True)["segment"]) == {"horizon 1-7", "department GROCERY", "all"}

    promote(models.lake, made.version, **PERSON)
    better = models.train()
    assert champion(models) == better.version
    assert stages(models, made.version) == ["rejected", "champion", "retired"]
    overall = against(decisions(models, better.version), made.version)
    assert overall["improvement"] > 2 * overall["standard_error"] > 0


def test_a_champion_whose_recipe_does_not_beat_naive_any_more_is_no_champion(models: SmallModels) -> None:
    _, second = models.trained
    third = models.train(poor=True).version
    assert champion(models) is None
    assert (stages(models, second), stages(models, third)) == (["champion", "rejected"], ["rejected"])
    assert "does not beat seasonal naive" in champions.why_none_is_in_force(models.lake, "all")
    with pytest.raises(ChampionError, match="no model is in force"):
        rollback(models.lake, shard=None, **PERSON)
    with pytest.raises(ChampionError, match=f"{third} does not beat seasonal naive"):
        promote(models.lake, third, **PERSON)
    fourth = models.train().version
    assert champion(models) == fourth


def test_a_model_of_another_panel_is_no_champion_there(models: SmallModels) -> None:
    first, second = models.trained
    elsewhere = models.using(STRONG, country="DE")
    with pytest.raises(ChampionError, match=f"model {first} was trained under other forecast settings"):
        promote(elsewhere.lake, first, **PERSON)
    made = elsewhere.train()
    assert made.judgement.action == "first"
    assert "no comparison with the champion" in made.judgement.reason
    assert (champion(elsewhere), stages(models, second)[-1]) == (made.version, "retired")


def test_a_champion_whose_folder_is_damaged_does_not_stop_the_next_model(models: SmallModels) -> None:
    (models.settings.models / models.trained[1] / "manifest.json").write_text("{}", encoding="utf-8")
    made = models.train()
    assert champion(models) == made.version
    assert "is not the one that was registered" in made.judgement.reason


def test_a_rollback_stays_until_a_person_promotes_another(models: SmallModels) -> None:
    first, second = models.trained
    now, before = rollback(models.lake, shard=None, **PERSON)
    assert (now["model_version"], before["model_version"]) == (first, second)
    with pytest.raises(ChampionError, match="in force because of a rollback already"):
        rollback(models.lake, shard=None, **PERSON)
    made = models.train()
    assert (champion(models), stages(models, made.version)) == (first, ["rejected"])
    assert "gone back to by a person" in made.judgement.reason
    promote(models.lake, made.version, **PERSON)
    assert champion(models) == made.version
    last = models.train().version
    assert champion(models) == last, "promotion ends what the rollback began"
    assert rollback(models.lake, shard=None, **PERSON)[0]["model_version"] == made.version


def test_a_decision_of_a_person_is_one_transaction_with_its_reason(models: SmallModels) -> None:
    first, second = models.trained
    before = models.lake.snapshot_id()
    promote(models.lake, first, **PERSON)
    assert models.lake.snapshot_id() == before + 1
    (entry,) = models.lake.read("governance.audit_log").to_dicts()
    assert (entry["who"], entry["action"], entry["subject"]) == ("Ada", "promote", f"model {first}")
    assert entry["reason"] == PERSON["why"]
    assert json.loads(entry["details"]) == {"shard": "all", "in_force_before": second, "in_force_now": first}
    rows = models.lake.read("model.registry").sort("changed_at").tail(2).sort("stage").rows(named=True)
    assert [(row["model_version"], row["stage"]) for row in rows] == [(first, "champion"), (second, "retired")]
    for row in rows:
        assert PERSON["why"] in row["reason"]
        assert row["changed_by"] == f"audit {entry['audit_id']}"
    last = decisions(models, first).row(-1, named=True)
    assert (last["action"], last["opponent"], last["decision_id"]) == ("promote", second, entry["audit_id"])


def test_a_damaged_version_is_not_put_in_force(models: SmallModels) -> None:
    first, second = models.trained
    file = models.settings.models / first / "calibrator.json"
    file.write_bytes(file.read_bytes().replace(b"1", b"2", 1))
    for decide in (lambda: rollback(models.lake, shard=None, **PERSON), lambda: promote(models.lake, first, **PERSON)):
        with pytest.raises(LakeError, match=f"{first} is damaged"):
            decide()
    shutil.rmtree(file.parent)
    with pytest.raises(LakeError, match=f"there is no model {first}"):
        promote(models.lake, first, **PERSON)
    assert champion(models) == second


def test_a_decision_that_comes_between_is_seen(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    judge, seen = champions.judge, []

    def interrupted(lakehouse: Any, candidate: Any, found: Any, *rest: Any) -> Any:
        judgement = judge(lakehouse, candidate, found, *rest)
        seen.append(found and found["model_version"])
        if len(seen) == 1:
            write_stage(models, found["model_version"], stage="retired")
        return judgement

    monkeypatch.setattr(champions, "judge", interrupted)
    made = models.train()
    assert seen == [models.trained[1], None]
    assert set(decisions(models, made.version)["action"]) == {"first"}


def test_mistakes_are_answered_in_one_sentence(models: SmallModels, shell: Shell) -> None:
    first, second = models.trained
    shell.monkeypatch.setenv("RETAIL_HOME", str(models.settings.home))
    shell.monkeypatch.setenv("RETAIL_FORECAST__HORIZON_DAYS", "7")
    write_stage(models, first, shard="shard-1-of-2", stage="rejected")
    before = models.lake.snapshot_id()
    for words, sentence in {
        ("promote", second, "--why", "x"): f"{second} is in force already",
        ("promote", "2016-01-01-x", "--why", "x"): "there is no model 2016-01-01-x",
        ("promote", f"{second}x", "--why", "x"): f"did you mean {second}?",
        ("promote", second, "--why", " "): "say why",
        ("promote", first, "--why", "x"): f"{first} was trained for shard-1-of-2; the settings know all",
        ("rollback", "--why", "x", "--shard", "shard-1-of-2"): "there is no shard shard-1-of-2",
    }.items():
        said = shell.refused("models", *words)
        assert sentence in said
        assert len(said.splitlines()) == 1
    assert models.lake.snapshot_id() == before


def test_after_a_rollback_by_command_the_forecast_is_that_of_the_version_in_force(
    retailer: Retailer, shell: Shell
) -> None:
    first = champion(retailer)
    assert first is not None
    said = shell.use(retailer).refused("models", "rollback", "--why", "x")
    assert f"{first} is the first champion: there is none to go back to" in said
    shutil.copytree(retailer.settings.models / first, retailer.settings.models / "older")
    for stage, at in (("champion", datetime(2017, 1, 1)), ("retired", datetime(2017, 2, 1))):
        write_stage(retailer, first, model_version="older", stage=stage, changed_at=at)

    code, output, errors = shell("models", "rollback", "--why", PERSON["why"], "--json")
    assert code == 0, errors
    assert json.loads(output) == {"in_force": "older", "before": first}
    assert "older" in retailer.metadata("model.decisions")["decision"], "the daemon is told"
    repository = build_definitions(retailer.settings).get_repository_def()
    with instance_of(retailer.settings) as instance:
        stale = stale_keys(dg.AssetSelection.groups(*SCIENCE), repository, last_commits(retailer.lake, instance))
    assert [key.to_user_string() for key in stale] == ["forecast/demand", "forecast/inventory_requirements"]
    materialize(retailer.lake, 'key:"forecast/demand"', None, None, lambda _: None)
    assert set(retailer.lake.read("forecast.demand")["model_version"]) == {"older"}
    assert retailer.check_passed("forecast.demand", "published_model_beats_naive")


def test_the_card_of_the_version_in_force_lies_in_its_folder_and_in_the_reports(
    models: SmallModels, shell: Shell
) -> None:
    first, second = models.trained
    shell.monkeypatch.setenv("RETAIL_HOME", str(models.settings.home))
    shell.monkeypatch.setenv("RETAIL_FORECAST__HORIZON_DAYS", "7")
    report = models.settings.reports / "model_card.html"
    assert f"Model {second}" in report.read_text(encoding="utf-8")
    assert shell("models", "rollback", "--why", PERSON["why"])[0] == 0
    assert f"Model {first}" in report.read_text(encoding="utf-8")
    shown = json.loads(shell("models", "show", first)[1])
    assert shown["card"] == str(models.settings.models / first / "card.html")
    assert [row["stage"] for row in shown["stages"]] == ["champion", "retired", "champion"]
    assert {row["action"] for row in shown["decisions"]} == {"first", "rollback"}


def test_the_page_of_the_registry_says_what_was_decided_and_by_which_figures(finished: Retailer) -> None:
    facts = finished.metadata("model.registry")
    assert facts["card"].startswith(f"# Model {facts['model_version']}\n")
    assert str(facts["card_page"]).endswith(f"{facts['model_version']}/card.html")
    assert (finished.settings.reports / "model_card.html").is_file()
    assert facts["promoted"]
    assert "beats seasonal naive" in facts["decision"]
    assert "department DAIRY" in facts["figures"]
    assert finished.metadata("model.decisions")["figures"] == facts["figures"]
