"""Commits one after the other share a connection, and none of them shows it."""

import shutil

from retail_platform.lakehouse import Append, Lakehouse, ReplaceSlices, ReplaceTable
from retail_platform.settings import Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, TUESDAY, counting_lake, sales


def test_commits_after_one_another_open_the_lake_once(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    counting, opened = counting_lake(lake.settings)
    for units in (1, 2, 3):
        counting.commit([ReplaceTable(SALES, sales(MONDAY, units))], BY)
    assert len(opened) == 1


def test_the_connection_that_creates_a_lake_carries_its_first_commits(settings: Settings) -> None:
    lake, opened = counting_lake(settings)
    for units in (1, 2):
        lake.commit([ReplaceTable(SALES, sales(MONDAY, units))], BY)
    assert len(opened) == 1
    assert lake.read("shop.sales")["units"].to_list() == [2]


def test_a_commit_that_changes_nothing_names_the_newest_snapshot_whoever_made_it(lake: Lakehouse) -> None:
    other = Lakehouse(lake.settings)
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    newest = other.commit([Append(SALES, sales(MONDAY, 2))], BY).snapshot_id

    nothing = lake.commit([ReplaceSlices(SALES, SALES.empty(), [{"day": TUESDAY}])], BY)
    assert nothing.snapshot_id == newest
    assert lake.commit([Append(SALES, sales(TUESDAY, 3))], BY).snapshot_id == newest + 1


def test_so_does_one_over_the_connection_that_created_the_lake(lake_settings: Settings) -> None:
    lake = Lakehouse(lake_settings)
    lake.prepare()
    newest = Lakehouse(lake.settings).commit([Append(SALES, sales(MONDAY, 2))], BY).snapshot_id
    assert lake.commit([ReplaceSlices(SALES, SALES.empty(), [{"day": TUESDAY}])], BY).snapshot_id == newest


def test_a_catalog_that_was_put_in_the_place_of_the_other_is_the_one_written_to(sqlite_lake: Lakehouse) -> None:
    lake, home = sqlite_lake, sqlite_lake.settings.home
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    elsewhere = Lakehouse(lake.settings.model_copy(update={"home": home.with_name("elsewhere")}))
    elsewhere.commit([ReplaceTable(SALES, sales(TUESDAY, 7))], BY)

    shutil.rmtree(home)
    shutil.copytree(elsewhere.settings.home, home)
    lake.commit([Append(SALES, sales(TUESDAY, 8))], BY)
    assert sorted(lake.read("shop.sales")["units"]) == [7, 8]
