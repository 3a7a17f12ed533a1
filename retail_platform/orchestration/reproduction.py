"""A trained version made again from its manifest and the lake as it was: the same predictions, or what is not the same.

Here: the manifest, what is read again, the comparison of files and predictions, and the environment by which a
difference can be explained. Not here: training itself (`forecasting/training.py`).
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as library_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from pydantic import ValidationError

import retail_platform
from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.connection import NoSnapshotError
from retail_platform.lakehouse.model_store import load_model
from retail_platform.orchestration.assets.features import forecast_version
from retail_platform.orchestration.champions import number, panel_version, recipe_of
from retail_platform.settings import ForecastSettings, Settings

if TYPE_CHECKING:
    from retail_platform.forecasting.models import Progress
    from retail_platform.forecasting.training import Gate, TrainedModel

LIBRARIES = ("lightgbm", "numpy", "polars", "duckdb", "retail-platform")
CODE = ("contracts", "features", "forecasting")
"""The rooms that make a model what it is."""


class NotReproducible(Exception):
    """A version that cannot be trained again; the message says why."""


@dataclass(frozen=True)
class Reproduction:
    """What came of training a version again.

    `differing_files` are those of the model that are not equal byte by byte; `largest_difference` is that of the means
    and quantiles forecast from the version's last day, in units; `changed` says in words what of the environment is not
    as it was.
    """

    version: str
    predictions: int
    largest_difference: float
    differing_files: tuple[str, ...]
    changed: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Every prediction is the same to the last bit."""
        return self.largest_difference == 0 and not self.differing_files


def manifest_of(
    model: "TrainedModel",
    demand: pl.DataFrame,
    settings: Settings,
    *,
    parameters: ForecastSettings,
    version: str,
    shard: str,
    backtest_id: str,
    gate: "Gate",
    lake_snapshot: int,
    run_id: str,
) -> dict[str, Any]:
    """Everything by which a version is judged, published and made again; `demand` is what it learned from, by
    `parameters`: the settings with everything chosen that they leave open.
    """
    return {
        "model_version": version,
        "model": model.name,
        "shard": shard,
        "parameters": parameters.model_dump(mode="json"),
        "recipe": recipe_of(model.name, settings.forecast),
        "training_window": {"first_day": str(demand["date"].min()), "last_day": str(model.trained_until)},
        "series": demand.select("store_id", "item_id").n_unique(),
        "lake_snapshot": lake_snapshot,
        "code_version": forecast_version(settings),
        "panel_version": panel_version(settings),
        "environment": environment(settings.forecast.threads),
        "run_id": run_id,
        "backtest": {
            "backtest_id": backtest_id,
            "wape": number(gate.wape),
            "naive_wape": number(gate.naive_wape),
            "verdict": gate.text,
        },
    }


def environment(threads: int) -> dict[str, Any]:
    """What else a model depends on beside data and settings, for its manifest: code, libraries, machine, threads."""
    return {
        "code_sha256": _code_sha256(),
        "libraries": {name: _installed(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": threads,
    }


def reproduce(lakehouse: Lakehouse, version: str, progress: "Progress") -> Reproduction:
    """Train a version again from the panel and backtest of its snapshot, and compare its predictions.

    Raises `NotReproducible` where its snapshot has expired, or where this code knows its settings or its kind of model
    no more; `LakeError` where its folder is damaged.
    """
    from retail_platform.forecasting.models import MODELS
    from retail_platform.forecasting.training import TrainedModel, make_forecast, train
    from retail_platform.orchestration.assets.model import read_backtest_errors, read_panel

    files, manifest = load_model(lakehouse.settings.models, version)
    changed = _changes(manifest)
    snapshot, shard, kind = int(manifest["lake_snapshot"]), str(manifest["shard"]), str(manifest["model"])
    try:
        lakehouse.snapshot_as_of(snapshot)
        settings = ForecastSettings.model_validate(manifest["parameters"])
        if kind not in MODELS:
            raise NotReproducible(f"{version} cannot be trained again: this code knows no model {kind}")
        progress(f"reading the panel as of snapshot {snapshot}")
        demand, history = read_panel(lakehouse, shard, at=snapshot)
        errors = read_backtest_errors(lakehouse, manifest["backtest"]["backtest_id"], at=snapshot)
        again = train(demand, history, errors, settings, model=kind, progress=progress)
        stored = TrainedModel.from_files(files)
    except NoSnapshotError as expired:
        raise NotReproducible(f"{version} cannot be trained again: {expired}") from None
    except (ValidationError, KeyError, ValueError) as other:
        reasons = "; ".join([_one_line(other), *changed])
        raise NotReproducible(f"{version} cannot be trained again by this version of the platform: {reasons}") from None
    progress("comparing the predictions")
    forecasts = [make_forecast(model, demand, history, stored.trained_until) for model in (stored, again)]
    new = again.files()
    return Reproduction(
        version,
        forecasts[0].height,
        _largest_difference(*forecasts),
        tuple(sorted(name for name in new if new[name] != files.get(name))),
        tuple(changed),
    )


def _changes(manifest: Mapping[str, Any]) -> list[str]:
    """What of the environment is not as it was, in words."""
    then, now = manifest.get("environment", {}), environment(int(manifest["parameters"]["threads"]))
    if not then:
        return ["the manifest does not say in which environment the version was trained"]
    changed = []
    if then["code_sha256"] != now["code_sha256"]:
        changed.append("the code of features and models has changed since")
    libraries = {name: (then["libraries"].get(name), present) for name, present in now["libraries"].items()}
    changed += [f"{name} was {was}, is {present}" for name, (was, present) in libraries.items() if was != present]
    changed += [f"{fact} was {then[fact]}, is {now[fact]}" for fact in ("python", "machine") if then[fact] != now[fact]]
    return changed


def _largest_difference(stored: pl.DataFrame, again: pl.DataFrame) -> float:
    keys = ["store_id", "item_id", "date"]
    numbers = [name for name in stored.columns if stored[name].dtype == pl.Float64]
    both = stored.join(again, on=keys, how="full", coalesce=True, suffix="_again")
    difference = pl.max_horizontal(
        # A forecast that one of them does not make differs from any.
        (pl.col(name) - pl.col(f"{name}_again")).abs().fill_null(float("inf")).max()
        for name in numbers
    )
    found = both.select(difference).item()
    return 0.0 if found is None else float(found)


def _code_sha256() -> str:
    package, digest = Path(retail_platform.__file__).parent, hashlib.sha256()
    for room in CODE:
        for file in sorted((package / room).rglob("*.py")):
            digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _installed(library: str) -> str:
    try:
        return library_version(library)
    except PackageNotFoundError:
        return "not installed"


def _one_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
    return f"the manifest or the model lacks {error}" if isinstance(error, KeyError) else str(error)
