"""Rules of the whole house, read from its source: who may import whom, and what the pure rooms may not do."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import retail_platform

PACKAGE = Path(retail_platform.__file__).parent
ROOT = PACKAGE.parent
MODULES = {str(file.relative_to(PACKAGE)): file for file in sorted(PACKAGE.rglob("*.py"))}

FLOW = (
    "contracts",
    "settings",
    "lakehouse",
    "sources",
    "cleaning",
    "features",
    "forecasting",
    "replenishment",
    "monitoring",
    "governance",
    "orchestration",
    "definitions",
    "doctor",
    "terminal",
    "cli_lake",
    "cli_models",
    "cli_quarantine",
    "cli",
)
"""A room imports only itself and rooms to its left."""

EXCEPTIONS = {
    (f"sources/{module}.py", "retail_platform.cleaning.text") for module in ("formats", "columns", "reader_process")
}
"""A landing file is read with the rules by which its text is cleaned, so that each row gets the right partition."""

PURE = ("cleaning", "features", "forecasting", "replenishment", "monitoring")
OUTSIDE_OF_PURE = {
    ("monitoring/evidently_report.py", "os"),
    ("monitoring/evidently_report.py", "os.environ"),
    # The pages' own templates are part of the package.
    ("forecasting/report.py", "PackageLoader"),
}

ONLY_IN = {
    "duckdb": ("lakehouse/",),
    "dagster": ("orchestration/", "definitions.py"),
    "dagster_duckdb": ("orchestration/", "definitions.py"),
    "evidently": ("monitoring/evidently_report.py",),
}

HEAVY = ("evidently", "holidays", "lightgbm", "matplotlib", "pandas", "scipy", "sklearn")

IMPURE_MODULES = {"os", "pathlib", "random", "shutil", "socket", "sqlite3", "subprocess", "tempfile", "time", "urllib"}
IMPURE_CALLS = {"PackageLoader", "input", "open", "print"}
IMPURE_METHODS = re.compile(r"now|today|utcnow|getenv|mkdir|unlink|read_.*|scan_.*|sink_.*|write_.*")

AVOIDED_DAGSTER = (
    "SourceAsset",
    "AutoMaterializePolicy",
    "LegacyFreshnessPolicy",
    "preview.freshness",
    "fs_io_manager",
    "multi_asset_sensor",
    "build_last_update_freshness_checks",
    "compute_kind=",
    "required_resource_keys",
    "asset_partition_key_for_output",
    "asset_partitions_time_window_for_output",
    "context.op_config",
    "load_defs(",
    ".configured(",
)

TEXT_SUFFIXES = {".py", ".md", ".toml", ".cfg", ".yaml", ".yml", ".txt", ".lock", ".sh", ".html", ".jinja", ""}
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:work|tmp|root|home)/\w")
REGISTRY = re.compile(
    r"https?://[^\s/]*(?:pypi|pythonhosted|artifactory|nexus|jfrog|devpi)|^(?:-i|--\S*index-url|-f) ", re.MULTILINE
)


def room_of(module: str) -> str:
    return module.removesuffix(".py").split("/")[0]


@cache
def imported_names(source: str) -> tuple[tuple[str, bool], ...]:
    """Each imported module, and whether it is imported when the module loads."""
    return tuple(_imported_names(ast.parse(source)))


def _imported_names(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    # `if TYPE_CHECKING:` never runs.
    unread = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        at_load = id(node) not in late | unread
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            yield str(node.module), at_load
            yield from ((f"{node.module}.{alias.name}", at_load) for alias in node.names)


def impurities(source: str) -> Iterator[str]:
    """What a module would take from, or leave in, the world outside its arguments."""
    for name, _ in imported_names(source):
        if name.split(".")[0] in IMPURE_MODULES:
            yield name
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.environ":
            yield "os.environ"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in IMPURE_CALLS or ("." in called and IMPURE_METHODS.fullmatch(called.split(".")[-1])):
                yield called


def test_every_room_stands_in_the_flow() -> None:
    assert {room_of(module) for module in MODULES} - {"__init__"} <= set(FLOW)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_rooms_before_it(module: str) -> None:
    room = room_of(module)
    allowed = {*FLOW[: FLOW.index(room) + 1]} if room in FLOW else set()
    if room in PURE:
        allowed -= {"lakehouse", "sources"}
    backwards = [
        name
        for name, _ in imported_names(MODULES[module].read_text(encoding="utf-8"))
        if name.startswith("retail_platform.") and name.split(".")[1] not in allowed
        if not any(module == place and name.startswith(exception) for place, exception in EXCEPTIONS)
    ]
    assert backwards == []


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_with_a_room_of_its_own_is_imported_nowhere_else(library: str) -> None:
    users = {
        module
        for module, file in MODULES.items()
        if any(name.split(".")[0] == library for name, _ in imported_names(file.read_text(encoding="utf-8")))
    }
    assert users
    assert {user for user in users if not user.startswith(ONLY_IN[library])} == set()


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) in PURE])
def test_a_pure_room_reads_no_file_no_clock_and_no_environment(module: str) -> None:
    found = {(module, what) for what in impurities(MODULES[module].read_text(encoding="utf-8"))}
    assert found - OUTSIDE_OF_PURE == set()


@pytest.mark.parametrize(
    "line",
    [
        "open('x')",
        "Path('x').read_text()",
        "datetime.now(UTC)",
        "date.today()",
        "os.environ['X']",
        "pl.scan_parquet('x')",
        "frame.write_csv('x')",
        "import os",
        "from pathlib import Path",
    ],
)
def test_the_search_for_impurities_finds(line: str) -> None:
    assert list(impurities(line))


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    at_load = {
        (module, name)
        for module, file in MODULES.items()
        for name, loads in imported_names(file.read_text(encoding="utf-8"))
        if loads and name.split(".")[0] in HEAVY
    }
    assert at_load == set()


def test_loading_the_definitions_imports_no_heavy_library_and_writes_nothing(tmp_path: Path) -> None:
    code = """
import sys
from retail_platform.contracts import TABLES
import retail_platform.definitions

for table in TABLES.values():
    table.validate(table.empty())
print(*sys.modules)

import pandas, polars
polars.from_pandas(pandas.DataFrame({"units": [1]}))
"""
    home = tmp_path / "home"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        env={"RETAIL_HOME": str(home), "PATH": "", "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert set(loaded) & set(HEAVY) == set()
    assert not home.exists()


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_lives_in_it(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, f"{module} has no docstring"


@pytest.mark.parametrize("api", AVOIDED_DAGSTER)
def test_dagster_apis_on_their_way_out_are_not_used(api: str) -> None:
    assert [module for module, file in MODULES.items() if api in file.read_text(encoding="utf-8")] == []


def written_by_us() -> list[Path]:
    # Where the repository is a worktree, `.git` is a file that names the place of the main one.
    folders = ("retail_platform", "retail_platform_tests", "docs", "benchmarks", "tools", ".ci")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if "__pycache__" not in file.parts]
    return [
        file
        for file in [*ROOT.iterdir(), *files]
        if file.is_file() and file.suffix in TEXT_SUFFIXES and file.name != ".git"
    ]


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["machine path", "package registry"])
def test_no_file_names_a_place_of_one_machine(pattern: re.Pattern[str]) -> None:
    files = {
        str(file.relative_to(ROOT)): file.read_text(encoding="utf-8", errors="replace") for file in written_by_us()
    }
    assert len(files) > len(MODULES)
    assert {name: found[0] for name, text in files.items() if (found := pattern.search(text))} == {}


def test_the_patterns_find_what_they_look_for() -> None:
    assert MACHINE_PATH.search("see /" + "work/main/x")
    assert REGISTRY.search("from https://" + "pypi.example/simple")
    assert REGISTRY.search("a==1\n--extra-index-url " + "x")
