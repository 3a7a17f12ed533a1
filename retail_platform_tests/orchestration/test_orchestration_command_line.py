"""The command line: help with an example, one sentence for a user's mistake, JSON for programs."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from retail_platform.cli import app
from retail_platform.doctor import examine
from retail_platform.lakehouse import Lakehouse, ReplaceTable
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, sales
from retail_platform_tests.shell import Shell
from retail_platform_tests.simulated_retailer import SIMULATION, Retailer


def commands(of: typer.Typer, *before: str) -> Iterator[tuple[str, ...]]:
    for command in of.registered_commands:
        assert command.callback is not None
        yield (*before, command.name or command.callback.__name__)
    for group in of.registered_groups:
        assert group.typer_instance is not None
        assert group.name is not None
        yield from commands(group.typer_instance, *before, group.name)


@pytest.mark.parametrize("command", commands(app), ids=" ".join)
def test_every_command_explains_itself_with_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    assert re.search(rf"Examples?: retail-platform {' '.join(command)}", result.output)


def test_help_answers_without_loading_any_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['retail-platform', '--help']\n"
        "from retail_platform.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(*sys.modules, sep=',')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split(","))
    assert "typer" in loaded
    assert loaded.isdisjoint({"dagster", "duckdb", "polars", "lightgbm", "evidently", "pandas"})


def test_a_mistake_ends_the_process_with_code_1_and_no_traceback(tmp_path: Path) -> None:
    code = "from retail_platform.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "sql", "SELECT 1"],
        env={"RETAIL_HOME": str(tmp_path / "none"), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("there is no lake at ")
    assert "retail-platform demo" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("sql", "SELECT 1"), "there is no lake at"),
        (("models", "list"), "there is no lake at"),
        (("forecast", "show"), "there is no lake at"),
        (("explore",), "there is no lake at"),
        (("lake", "snapshots"), "there is no lake at"),
        (("lake", "fsck"), "there is no lake at"),
        (("lake", "maintain"), "there is no lake at"),
        (("lake", "backup", "copies"), "there is no lake at"),
        (("lake", "restore", "nowhere"), "has no finished backup; there is none"),
        (("sql", "SELECT 1", "--at", "soon"), "soon is neither the number of a snapshot nor a time"),
        (("models", "show", "2017-01-01-all-abc"), "there is no model 2017-01-01-all-abc"),
        (("models", "show", "../customer"), "'../customer' is not the name of a model version"),
        (("ingest", "sales"), "unknown feed sales; known are pos_sales, inventory"),
        (("load", "m5", "--path", "."), "sales"),
        (("load", "m5", "--path", "nowhere"), "nowhere"),
        (("lineage", "clean.sale"), "clean.sale"),
        (("lineage", "clean.sales.customer"), "customer"),
        (("run", "--partition", "2017-03-01"), "--partition says which part of a selection"),
        (("run", "--select", "group:clean"), "clean/sales"),
        (("run", "--select", "group:cleaned"), "no asset matches the selection 'group:cleaned'"),
        (("run", "--select", "key:(("), "key:(("),
        (("run", "--select", "group:clean", "--partition", "2017-13-01"), "2017-13-01 is neither a day"),
        (("run", "--select", "group:clean", "--partition", "2017-03-02..2017-03-01"), "the first day lies after"),
        (("run", "--select", 'key:"clean/sales"', "--partition", "1999-01-01"), "1999-01-01"),
        (("run", "--select", 'key:"features/demand"', "--partition", "shard-7"), "shard-7"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_answered_in_one_sentence(shell: Shell, words: tuple[str, ...], sentence: str) -> None:
    said = shell.refused(*words)
    assert sentence in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("SELEKT 1", "syntax error"),
        ("SELECT * FROM clean.sale", "clean.sale"),
        ("SELECT nothing FROM clean.sales", "nothing"),
        ("DELETE FROM clean.sales", "one SELECT, DESCRIBE or EXPLAIN is expected"),
        ("DROP TABLE clean.sales", "one SELECT, DESCRIBE or EXPLAIN is expected"),
        ("CREATE TABLE clean.mine AS SELECT 1", "one SELECT, DESCRIBE or EXPLAIN is expected"),
        ("SELECT 1; DROP TABLE clean.sales", "one SELECT"),
        ("COPY clean.sales TO 'stolen.csv'", "one SELECT, DESCRIBE or EXPLAIN is expected"),
        ("SELECT * FROM read_csv('/etc/passwd')", "file system operations are disabled"),
        ("", "one SELECT"),
    ],
)
def test_sql_reads_the_lake_and_nothing_else(shell: Shell, finished: Retailer, statement: str, sentence: str) -> None:
    before = finished.lake.snapshot_id()
    assert sentence.lower() in shell.use(finished).refused("sql", statement).lower()
    assert finished.lake.snapshot_id() == before
    assert not Path("stolen.csv").exists()


def test_sql_prints_an_array_of_objects_for_programs(shell: Shell, finished: Retailer) -> None:
    statement = "SELECT count(*) AS rows, min(business_date) AS first, NULL AS nothing FROM clean.sales"
    (row,) = shell.use(finished).rows("sql", statement, "--json")
    assert row == {
        "rows": finished.lake.read("clean.sales").height,
        "first": str(SIMULATION.start_date),
        "nothing": None,
    }
    assert shell.rows("sql", "SELECT 1 AS one WHERE false", "--json") == []


def test_sql_reads_the_lake_as_of_a_snapshot(shell: Shell, finished: Retailer) -> None:
    shell.use(finished)
    first = min(int(str(row["snapshot_id"])) for row in shell.rows("lake", "snapshots", "--json"))
    assert "there is no snapshot 999999" in shell.refused("sql", "SELECT 1", "--at", "999999")
    assert "clean" in shell.refused("sql", "SELECT * FROM clean.sales", "--at", str(first))


def test_models_and_forecasts_are_shown(shell: Shell, finished: Retailer) -> None:
    shell.use(finished)
    (model,) = shell.rows("models", "list", "--json")
    assert model["stage"] == "champion"
    code, output, _ = shell("models", "show", str(model["model_version"]))
    assert code == 0
    assert json.loads(output)["model_version"] == model["model_version"]
    days = shell.rows("forecast", "show", "--json")
    assert [day["horizon"] for day in days] == list(range(1, 29))
    assert {day["model_version"] for day in days} == {model["model_version"]}
    assert "no forecast of that store and item" in shell.refused("forecast", "show", "--store", "nowhere")


def test_lineage_is_told_both_ways(shell: Shell) -> None:
    (up,) = shell.rows("lineage", "clean.sales.customer_pseudonym", "--upstream", "--json")
    assert up["source"] == "raw.pos_sales.customer_id"
    down = shell.rows("lineage", "clean.sales", "--downstream", "--json")
    assert any(str(edge["target"]).startswith("features.demand") for edge in down)


def test_ingest_names_what_it_took_in_and_nothing_the_second_time(shell: Shell, new_retailer: Retailer) -> None:
    rows = [{"item_id": "MILK"}, {"item_id": "SOUP"}]
    new_retailer.land("items", "items.csv", rows)
    code, output, errors = shell.use(new_retailer)("ingest", "items")
    assert (code, errors) == (0, "")
    assert "items.csv" in output
    code, output, _ = shell("ingest", "items")
    assert code == 0
    assert "no new file in the landing zone" in output


def test_ingest_says_how_the_columns_of_a_file_differ(shell: Shell, new_retailer: Retailer) -> None:
    new_retailer.land("items", "a.csv", [{"item_id": "MILK", "item_name": "Milk"}])
    renamed = new_retailer.settings.landing / "items" / "b.csv"
    renamed.write_text("item_id,name\nSOUP,Soup\n", encoding="utf-8")
    code, _, errors = shell.use(new_retailer)("ingest", "items")
    assert code == 0
    assert "items/b.csv: column item_name, which a.csv had, is gone" in errors
    assert "[feeds.items.columns]" in errors


def test_ingest_names_a_broken_file_a_folder_of_no_feed_and_what_became_of_the_others(
    shell: Shell, new_retailer: Retailer
) -> None:
    new_retailer.land("items", "good.csv", [{"item_id": "MILK"}])
    broken = new_retailer.settings.landing / "items" / "broken.csv"
    broken.write_text("sku\nMILK\n", encoding="utf-8")
    shutil.copy(new_retailer.settings.landing / "items" / "good.csv", broken.with_name("twice.csv"))
    (new_retailer.settings.landing / "sales").mkdir()
    code, output, errors = shell.use(new_retailer)("ingest", "items", "--json")
    assert code == 1
    for words in ("raw.items", "broken.csv", "item_id", "sku", "landing/sales is taken in by nobody", "pos_sales/?"):
        assert words in errors
    assert [(row["file_name"], row["status"]) for row in json.loads(output)] == [
        ("broken.csv", "refused"),
        ("good.csv", "ingested"),
        ("twice.csv", "repeated"),
    ]
    assert new_retailer.lake.read("raw.items").height == 1
    assert {finding.what for finding in examine() if not finding.fine} == {"landing zone"}


def test_simulated_files_land_in_the_home(shell: Shell) -> None:
    code, _, errors = shell("simulate", "--stores", "1", "--items", "2", "--days", "3")
    assert code == 0, errors
    assert list((shell.home / "landing" / "pos_sales").iterdir())
    assert list((shell.home / "truth").iterdir())


@pytest.mark.parametrize(
    ("variables", "toml", "sentence"),
    [
        ({"RETAIL_FORECAST__TREE": "3"}, "", "unknown setting forecast.tree; did you mean trees?"),
        ({}, "[forecast]\nhorizon = 14\n", "unknown setting forecast.horizon"),
        ({}, "contry = 'DE'\n", "unknown setting contry; did you mean country?"),
        ({}, "country = \n", "is not TOML"),
    ],
)
def test_a_typo_in_the_settings_is_refused_by_every_command(
    shell: Shell, variables: dict[str, str], toml: str, sentence: str
) -> None:
    for name, value in variables.items():
        shell.monkeypatch.setenv(name, value)
    Path("retail.toml").write_text(toml, encoding="utf-8")
    assert sentence in shell.refused("ingest")
    assert sentence in shell.refused("sql", "SELECT 1")


def test_the_doctor_finds_this_machine_fit(shell: Shell) -> None:
    code, output, _ = shell("doctor")
    assert code == 0, output
    assert "LightGBM" in output
    assert not shell.home.exists(), "the doctor changes nothing"


def test_the_doctor_says_what_to_do_about_a_wrong_setting_and_a_home_that_cannot_be_written(shell: Shell) -> None:
    shell.monkeypatch.setenv("RETAIL_COUNTY", "US")
    code, output, _ = shell("doctor")
    assert code == 1
    assert "country" in output
    shell.monkeypatch.delenv("RETAIL_COUNTY")
    Path("file").write_text("", encoding="utf-8")
    shell.monkeypatch.setenv("RETAIL_HOME", "file/home")
    assert {finding.what for finding in examine() if not finding.fine} == {"home folder"}


def test_a_day_is_cleaned_again_on_demand(shell: Shell, retailer: Retailer) -> None:
    day = date(2017, 2, 1)
    before = retailer.lake.snapshot_id()
    code, output, errors = shell.use(retailer)("run", "--select", 'key:"clean/sales"', "--partition", f"{day}..{day}")
    assert code == 0, errors
    assert "clean/sales" in output
    assert retailer.lake.snapshot_id() == before + 1


def test_a_lake_is_maintained_backed_up_and_restored_by_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lakehouse(Settings(home=shell.home))
    written = lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY).snapshot_id
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 2))], BY)

    assert len(shell.rows("lake", "snapshots", "--limit", "2", "--json")) == 2
    time = next(row for row in shell.rows("lake", "snapshots", "--json") if row["snapshot_id"] == written)
    for at in (str(written), str(time["snapshot_time"])):
        assert shell.rows("sql", "SELECT units FROM shop.sales", "--at", at, "--json") == [{"units": 1}]
    assert json.loads(shell("lake", "maintain", "--json")[1])["snapshots_kept"] >= 3
    place = shell.home.parent / "copies"
    made = json.loads(shell("lake", "backup", str(place), "--json")[1])
    assert json.loads(shell("lake", "restore", str(place), "--check", "--json")[1])["snapshot"] == made["snapshot"]
    assert "--force" in shell.refused("lake", "restore", str(place))
    monkeypatch.setenv("RETAIL_HOME", str(shell.home.parent / "drill"))
    assert shell("lake", "restore", str(place))[0] == 0
    assert shell.rows("sql", "SELECT units FROM shop.sales", "--json") == [{"units": 2}]
    assert "the lake is sound" in shell("lake", "fsck", "--deep")[1]


def test_demand_is_explored_on_one_page(shell: Shell, retailer: Retailer) -> None:
    code, output, errors = shell.use(retailer)("explore")
    assert code == 0, errors
    page = retailer.settings.reports / "explore.html"
    assert str(page) in output
    text = page.read_text(encoding="utf-8")
    assert "Simulated, not measured: " in text
    assert "SOFT DRINKS" in text


def test_there_is_nothing_to_explore_before_there_is_a_panel(shell: Shell, new_retailer: Retailer) -> None:
    assert "there is no demand panel to explore yet" in shell.use(new_retailer).refused("explore")
