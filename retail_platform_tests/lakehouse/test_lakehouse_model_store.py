"""A model version is whole or absent, and is never read altered."""

import json
from pathlib import Path

import pytest

from retail_platform.lakehouse import LakeError
from retail_platform.lakehouse.model_store import MANIFEST, load_model, manifest_sha256, save_model

FILES = {"mean-h07.txt": "tree\nversion=v4\r\n", "q50.txt": "Größe\n"}


def test_a_saved_model_is_read_back_unchanged_with_its_manifest(tmp_path: Path) -> None:
    digest = save_model(tmp_path, "v1", FILES, {"seed": 7, "features": ["lag_7"]})

    files, manifest = load_model(tmp_path, "v1")
    assert files == FILES
    assert manifest["seed"] == 7
    assert manifest["features"] == ["lag_7"]
    assert set(manifest["files"]) == set(FILES)
    assert digest == manifest_sha256(tmp_path, "v1")


def test_saving_leaves_nothing_but_the_version(tmp_path: Path) -> None:
    save_model(tmp_path, "v1", FILES, {})

    assert [path.name for path in tmp_path.iterdir()] == ["v1"]
    assert {path.name for path in (tmp_path / "v1").iterdir()} == {*FILES, MANIFEST}


def test_saving_the_same_version_again_changes_nothing(tmp_path: Path) -> None:
    assert save_model(tmp_path, "v1", FILES, {"seed": 7}) == save_model(tmp_path, "v1", FILES, {"seed": 7})


def test_a_version_is_never_overwritten(tmp_path: Path) -> None:
    save_model(tmp_path, "v1", FILES, {"seed": 7})

    with pytest.raises(LakeError, match="v1 exists with other content"):
        save_model(tmp_path, "v1", FILES, {"seed": 8})
    assert load_model(tmp_path, "v1")[1]["seed"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def test_every_damaged_file_is_named(tmp_path: Path) -> None:
    save_model(tmp_path, "v1", FILES, {})
    (tmp_path / "v1" / "q50.txt").unlink()
    (tmp_path / "v1" / "mean-h07.txt").write_text("tree\nversion=v5\n")

    with pytest.raises(LakeError) as damaged:
        load_model(tmp_path, "v1")
    for words in ("q50.txt is missing", "mean-h07.txt is not the file that was saved", "train again"):
        assert words in str(damaged.value)


@pytest.mark.parametrize("document", ["", "{", "[]", '{"files": 3}', '{"files": {"q50.txt": "abc"}}'])
def test_a_broken_manifest_is_named(tmp_path: Path, document: str) -> None:
    save_model(tmp_path, "v1", FILES, {})
    (tmp_path / "v1" / MANIFEST).write_text(document)

    with pytest.raises(LakeError, match=r"manifest\.json is not a model manifest"):
        load_model(tmp_path, "v1")


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    save_model(tmp_path, "v1", FILES, {})
    (tmp_path / "secret.txt").write_text("secret")
    manifest = json.loads((tmp_path / "v1" / MANIFEST).read_text())
    manifest["files"] = {"../secret.txt": {"sha256": "0" * 64}}
    (tmp_path / "v1" / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(LakeError, match="missing"):
        load_model(tmp_path, "v1")


def test_a_version_that_was_never_saved_is_named(tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="there is no model v2"):
        load_model(tmp_path, "v2")


@pytest.mark.parametrize(
    ("version", "files", "manifest"),
    [
        ("../v1", {}, {}),
        (".v1", {}, {}),
        ("v1", {"a/b.txt": ""}, {}),
        ("v1", {MANIFEST: "{}"}, {}),
        ("v1", {}, {"files": {}}),
        ("v1", {}, {"wape": float("nan")}),
        ("v1", {}, {"when": object()}),
    ],
)
def test_what_cannot_be_stored_is_refused_and_leaves_nothing(
    tmp_path: Path, version: str, files: dict[str, str], manifest: dict[str, object]
) -> None:
    with pytest.raises(LakeError):
        save_model(tmp_path / "models", version, files, manifest)
    assert not (tmp_path / "models").exists()
