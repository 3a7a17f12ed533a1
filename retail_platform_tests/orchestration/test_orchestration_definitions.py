"""The code location: it loads, every asset says all that governance asks, and the graph changes only on purpose."""

import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml  # type: ignore[import-untyped]

import retail_platform
from retail_platform.contracts import TABLES
from retail_platform.governance.lineage import column_lineage
from retail_platform.lakehouse import Lakehouse
from retail_platform.orchestration.build import build_definitions
from retail_platform.orchestration.server import LOCATION
from retail_platform.settings import ForecastSettings, Settings
from retail_platform_tests.golden import assets as golden

ROOT = Path(retail_platform.__file__).parents[1]
# Sorted, because every test worker must collect the same list.
SPECS = dict(
    sorted((spec.key.to_user_string(), spec) for spec in build_definitions(Settings()).resolve_all_asset_specs())
)
OF_TABLES = {name: spec for name, spec in SPECS.items() if spec.group_name != "source"}


@pytest.fixture(scope="module")
def graph() -> Any:
    return build_definitions(Settings()).resolve_asset_graph()


def test_the_definitions_load() -> None:
    dg.Definitions.validate_loadable(build_definitions(Settings()))


def test_keys_owners_groups_and_checks_are_those_of_the_golden_list() -> None:
    listed = Path(golden.__file__).with_name("assets.txt").read_text(encoding="utf-8")
    assert golden.asset_listing() == listed, golden.__doc__


def test_every_contract_has_an_asset_and_every_asset_a_contract() -> None:
    assert {name.replace("/", ".") for name in OF_TABLES} == set(TABLES)


@pytest.mark.parametrize("name", SPECS)
def test_every_asset_says_who_owns_it_and_what_it_is(name: str) -> None:
    spec = SPECS[name]
    assert spec.owners
    assert spec.group_name == name.split("/", maxsplit=1)[0]
    assert spec.description
    assert len(spec.description) > 20
    assert spec.kinds
    assert spec.code_version
    assert spec.tags["classification"] in {"public", "internal", "confidential", "personal"}
    assert spec.tags["tier"] in {"source", "bronze", "silver", "gold"}


@pytest.mark.parametrize("name", OF_TABLES)
def test_every_table_shows_its_contract_as_columns(name: str) -> None:
    table = TABLES[name.replace("/", ".")]
    schema = OF_TABLES[name].metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    assert [column.name for column in schema.columns] == [column.name for column in table.columns]
    for shown, column in zip(schema.columns, table.columns, strict=True):
        assert shown.description
        assert shown.constraints.nullable == column.nullable
        assert shown.tags["classification"] == column.classification


@pytest.mark.parametrize("name", OF_TABLES)
def test_column_lineage_names_columns_that_exist_in_tables_that_are_upstream(name: str, graph: Any) -> None:
    lineage = OF_TABLES[name].metadata["dagster/column_lineage"]
    assert isinstance(lineage, dg.TableColumnLineage)
    if column_lineage(name.replace("/", ".")):
        assert lineage.deps_by_column
    assert set(lineage.deps_by_column) <= {column.name for column in TABLES[name.replace("/", ".")].columns}
    deps = [dep for deps in lineage.deps_by_column.values() for dep in deps]
    unknown = [
        dep
        for dep in deps
        if dep.column_name not in TABLES[".".join(dep.asset_key.path)].polars_schema
        or dep.asset_key.to_user_string() not in SPECS
    ]
    assert unknown == []


@pytest.mark.parametrize(
    "name", [name for name, spec in OF_TABLES.items() if spec.group_name in {"features", "forecast"}]
)
def test_tables_of_science_know_where_their_columns_come_from(name: str) -> None:
    lineage = OF_TABLES[name].metadata["dagster/column_lineage"]
    assert isinstance(lineage, dg.TableColumnLineage)
    assert lineage.deps_by_column


def test_every_step_that_writes_has_a_pool_so_that_a_table_has_one_writer(graph: Any) -> None:
    writing = [graph.get(key) for key in graph.materializable_asset_keys]
    without = [node.key.to_user_string() for node in writing if len(node.pools or ()) != 1]
    assert without == []
    pools = [(next(iter(node.pools or ())), node.execution_set_entity_keys) for node in writing]
    shared = {pool for pool, steps in pools for other, others in pools if pool == other and steps.isdisjoint(others)}
    assert shared == set()


def test_sensors_run_without_being_turned_on() -> None:
    sensors = build_definitions(Settings()).sensors or []
    names = {sensor.name for sensor in sensors}
    assert names >= {"landing_files", "changed_days", "drift_holds", "refresh_downstream"}
    assert {sensor.default_status for sensor in sensors} == {dg.DefaultSensorStatus.RUNNING}


def test_every_science_asset_refreshes_itself(graph: Any) -> None:
    made = {key.to_user_string() for key in graph.materializable_asset_keys}
    science = {name for name in made if SPECS[name].group_name in {"features", "model", "forecast"}}
    assert {name for name in science if SPECS[name].automation_condition is None} == set()


def test_each_call_builds_anew_with_the_settings_and_the_lake_given(settings: Settings) -> None:
    own = Lakehouse(settings)
    first = build_definitions(settings, own)
    second = build_definitions(settings)
    assert first is not second
    assert (first.resources or {})["lakehouse"] is own
    assert (second.resources or {})["lakehouse"] is not own
    assert (second.resources or {})["settings"] is settings


def test_stores_are_cut_into_shards_for_science_and_into_days_for_cleaning(settings: Settings) -> None:
    sharded = settings.model_copy(update={"forecast": ForecastSettings(shards=3)})
    graph = build_definitions(sharded).resolve_asset_graph()
    partitions = {key.to_user_string(): graph.get(key).partitions_def for key in graph.materializable_asset_keys}
    daily = {name for name, cut in partitions.items() if isinstance(cut, dg.DailyPartitionsDefinition)}
    by_shard = {name for name, cut in partitions.items() if isinstance(cut, dg.StaticPartitionsDefinition)}
    assert daily == {"clean/sales", "clean/inventory"}
    assert by_shard == {name for name in partitions if name.split("/")[0] in {"features", "model", "forecast"}}
    for name in by_shard:
        cut = partitions[name]
        assert cut is not None
        assert list(cut.get_partition_keys()) == ["shard-1-of-3", "shard-2-of-3", "shard-3-of-3"]


def test_one_shard_means_no_partitions(graph: Any) -> None:
    cut = {key.to_user_string() for key in graph.materializable_asset_keys if graph.get(key).partitions_def}
    assert cut == {"clean/sales", "clean/inventory"}


def test_many_days_are_one_run(graph: Any) -> None:
    policies = {graph.get(dg.AssetKey(["clean", name])).backfill_policy for name in ("sales", "inventory")}
    assert policies == {dg.BackfillPolicy.single_run()}


def test_the_workspace_and_the_project_file_name_the_same_module() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dg"]["project"]
    (entry,) = workspace["load_from"]
    assert entry["python_module"]["module_name"] == project["code_location_target_module"]
    assert entry["python_module"]["module_name"] == "retail_platform.definitions"
    assert entry["python_module"]["location_name"] == LOCATION
