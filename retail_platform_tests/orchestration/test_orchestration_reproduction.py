"""A version made again from its manifest: equal to the last bit, or what is not as it was."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import LakeError, ReplaceTable
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.lakehouse.model_store import load_model
from retail_platform.orchestration import reproduction
from retail_platform.orchestration.reproduction import NotReproducible, Reproduction, reproduce
from retail_platform_tests.shell import Shell
from retail_platform_tests.simulated_retailer import Retailer
from retail_platform_tests.small_models import BY, PANEL, STRONG, SmallModels


def again(models: SmallModels, version: str) -> Reproduction:
    return reproduce(models.lake, version, lambda _: None)


def test_a_version_is_reproduced_to_the_last_bit_from_the_lake_as_it_was(models: SmallModels) -> None:
    changed = PANEL.with_columns(pl.col("units") + 1)
    models.lake.commit([ReplaceTable(TABLES["features.demand"], changed)], BY)
    done = again(models, models.trained[0])
    assert done.equal
    assert (done.largest_difference, done.differing_files, done.changed) == (0.0, (), ())
    assert done.predictions == 10 * 7


def test_the_retailers_model_is_reproduced_by_command(finished: Retailer, shell: Shell) -> None:
    version = str(finished.lake.read("model.registry")["model_version"].item())
    code, output, errors = shell.use(finished)("models", "reproduce", version)
    assert code == 0, errors
    assert "predictions are equal to the last bit" in output


def test_what_differs_is_said_with_what_has_changed_since(
    two_champions: SmallModels, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, version = two_champions, two_champions.trained[0]
    files, manifest = load_model(models.settings.models, version)
    was = manifest["environment"]
    altered = {
        **manifest,
        "parameters": {**manifest["parameters"], "trees": STRONG.trees + 1},
        "environment": {**was, "code_sha256": "0" * 64, "libraries": {**was["libraries"], "lightgbm": "3.0"}},
    }
    monkeypatch.setattr(reproduction, "load_model", lambda *_: (files, altered))
    done = again(models, version)
    assert not done.equal
    assert done.largest_difference > 0
    assert "horizon-001-007.txt" in done.differing_files
    shell.monkeypatch.setenv("RETAIL_HOME", str(models.settings.home))
    code, output, errors = shell("models", "reproduce", version, "--json")
    assert code == 1
    assert json.loads(output)["equal"] is False
    for words in ("the code of features and models has changed since", "lightgbm was 3.0, is "):
        assert words in errors


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"parameters": {**STRONG.model_dump(mode="json"), "branches": 3}}, "branches"),
        ({"model": "oracle"}, "no model oracle"),
        ({"lake_snapshot": 10**6}, "there is no snapshot 1000000"),
    ],
    ids=["setting", "model", "snapshot"],
)
def test_what_this_code_or_lake_does_not_know_is_named(
    two_champions: SmallModels, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], sentence: str
) -> None:
    version = two_champions.trained[0]
    files, manifest = load_model(two_champions.settings.models, version)
    monkeypatch.setattr(reproduction, "load_model", lambda *_: (files, {**manifest, **change}))
    with pytest.raises(NotReproducible, match=f"^{version} cannot be trained again.*{sentence}") as refused:
        again(two_champions, version)
    assert "\n" not in str(refused.value)


def test_a_damaged_folder_is_named(finished: Retailer) -> None:
    with pytest.raises(LakeError, match="there is no model nothing"):
        reproduce(finished.lake, "nothing", lambda _: None)


def test_after_maintenance_a_champion_is_still_reproduced_and_others_say_that_they_expired(
    models: SmallModels,
) -> None:
    worse, champion = models.train(poor=True).version, models.trained[1]
    # Rewritten and merged files must give the rows of a snapshot in an order that changes nothing.
    models.lake.commit([ReplaceTable(TABLES["features.demand"], PANEL)], BY)
    maintain(models.lake, now=datetime.now(UTC) + timedelta(days=60))
    assert again(models, champion).equal
    with pytest.raises(NotReproducible, match=f"{worse} cannot be trained again: snapshot .* has expired"):
        again(models, worse)
