"""Maintenance makes the lake smaller and changes no row; no reader fails, and no writer is run over."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from retail_platform.contracts import TABLES
from retail_platform.lakehouse import Append, LakeError, Lakehouse, ReplaceSlices, ReplaceTable
from retail_platform.lakehouse.compaction import compaction
from retail_platform.lakehouse.fsck import fsck
from retail_platform.lakehouse.locks import lock_folder, table_locks
from retail_platform.lakehouse.maintenance import maintain
from retail_platform.lakehouse.storage import DataFiles
from retail_platform.settings import LakeSettings, Settings
from retail_platform_tests.lakehouse.shop import BY, MONDAY, SALES, sales
from retail_platform_tests.object_storage import ObjectStorage

A_MONTH_ON = datetime.now(UTC) + timedelta(days=31)


def with_limits(lake: Lakehouse, **limits: float) -> Lakehouse:
    return Lakehouse(
        lake.settings.model_copy(update={"lake": LakeSettings(**{**lake.settings.lake.model_dump(), **limits})})
    )


def days(lake: Lakehouse, count: int) -> list[int]:
    """One commit for each of some days; their snapshots."""
    written = [MONDAY + timedelta(days=number) for number in range(count)]
    return [
        lake.commit([ReplaceSlices(SALES, sales(day, number, 7), [{"day": day}])], BY).snapshot_id
        for number, day in enumerate(written)
    ]


def test_small_files_become_one_and_every_snapshot_reads_as_before(lake: Lakehouse) -> None:
    days(lake, 5)
    lake.commit([ReplaceSlices(SALES, sales(MONDAY, 9), [{"day": MONDAY, "store": "S0"}])], BY)
    before = {at: lake.read("shop.sales", at=at) for at in lake.snapshots()["snapshot_id"] if at > 0}
    files = len(DataFiles(lake.settings).listing())

    report = maintain(lake, run_id="run-9")

    for at, rows in before.items():
        assert_frame_equal(lake.read("shop.sales", at=at), rows, check_row_order=False)
    assert report.files_compacted > report.files_written >= 1
    assert (report.snapshots_expired, report.files_removed) == (0, 0)
    assert len(DataFiles(lake.settings).listing()) > files  # those merged are kept for readers until the guard is over
    assert fsck(lake, orphans_older_than=timedelta(0)) == []
    assert lake.read("storage.maintenance")["run_id"].to_list() == ["run-9"]

    later = maintain(lake, now=datetime.now(UTC) + timedelta(days=2))
    assert later.files_removed >= report.files_compacted - 1
    assert later.bytes_removed > 0
    assert_frame_equal(lake.read("shop.sales"), before[max(before)], check_row_order=False)
    assert fsck(lake, orphans_older_than=timedelta(0)) == []


def test_old_snapshots_expire_and_what_they_said_of_their_commits_is_kept(sqlite_lake: Lakehouse) -> None:
    first, *_, last = days(sqlite_lake, 4)
    before = sqlite_lake.commits().filter(pl.col("snapshot_id") <= last).drop("expired")

    report = maintain(sqlite_lake, now=A_MONTH_ON)

    assert report.snapshots_expired == last  # from the empty lake, snapshot 0, to the one before the newest
    with pytest.raises(LakeError, match=f"snapshot {first} has expired"):
        sqlite_lake.read("shop.sales", at=first)
    after = sqlite_lake.commits()
    assert_frame_equal(after.filter(pl.col("snapshot_id") <= last).drop("expired"), before)
    assert after.filter("expired")["snapshot_id"].to_list() == list(reversed(range(last)))
    assert sqlite_lake.read("shop.sales").height == 8
    maintain(sqlite_lake, now=A_MONTH_ON)
    assert sqlite_lake.commits()["snapshot_id"].is_unique().all()


def registered(lake: Lakehouse, version: str, stage: str, at: datetime) -> int:
    """A row of the registry for a model that was trained on the newest snapshot; that snapshot."""
    table = TABLES["model.registry"]
    snapshot = lake.snapshot_id()
    values = ("all", stage, at.replace(tzinfo=None), "run-1", "", MONDAY, version, "0" * 64, snapshot, None, None)
    lake.commit([Append(table, pl.DataFrame([(version, *values)], schema=table.polars_schema, orient="row"))], BY)
    return snapshot


def test_snapshots_that_champions_were_trained_on_stay_readable(sqlite_lake: Lakehouse) -> None:
    now = datetime.now(UTC) + timedelta(days=1000)
    ages = {"old": 900, "rejected": 40, "recent": 300, "champion": 41}
    snapshots = {}
    for number, (version, age) in enumerate(ages.items()):
        sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, number))], BY)
        stage = "rejected" if version == "rejected" else "champion"
        snapshots[version] = registered(sqlite_lake, version, stage, now - timedelta(days=age))

    maintain(sqlite_lake, now=now)

    kept = set(sqlite_lake.snapshots()["snapshot_id"])
    assert {version for version, snapshot in snapshots.items() if snapshot in kept} == {"recent", "champion"}
    assert sqlite_lake.read("shop.sales", at=snapshots["recent"])["units"].to_list() == [2]


def test_readers_at_work_read_on_while_snapshots_expire_and_files_are_merged(lake: Lakehouse) -> None:
    snapshots = days(lake, 3)
    expected = [lake.read("shop.sales", at=at).height for at in snapshots]
    with lake.connection(at=snapshots[0]) as old, lake.connection() as present:
        old_rows = old.execute("SELECT * FROM shop.sales").to_arrow_reader(1)
        present.execute("BEGIN")
        maintain(lake, now=A_MONTH_ON)
        assert sum(batch.num_rows for batch in old_rows) == expected[0]
        assert present.execute("SELECT count(*) FROM shop.sales").fetchone() == (expected[-1],)


class Meanwhile(list[int]):
    """Parameters of a statement; something happens once, after the lake was opened and before they are bound."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__([0])
        self.action = action
        self.asked = 0

    def __iter__(self) -> Iterator[int]:
        self.asked += 1
        if self.asked == 1:
            self.action()
        return super().__iter__()


def test_a_snapshot_that_expires_while_it_is_read_is_refused_and_not_shown_with_fewer_rows(
    sqlite_lake: Lakehouse,
) -> None:
    first, *_ = days(sqlite_lake, 3)
    meanwhile = Meanwhile(lambda: maintain(sqlite_lake, now=A_MONTH_ON))
    with pytest.raises(LakeError, match=f"snapshot {first} has expired"):
        sqlite_lake.query("SELECT * FROM shop.sales WHERE units >= ?", meanwhile, at=first)


def times_asked(lake: Lakehouse, meanwhile: Callable[[], object], at: int | None = None) -> int:
    parameters = Meanwhile(meanwhile)
    lake.query("SELECT * FROM shop.sales WHERE units >= ?", parameters, at=at)
    return parameters.asked


def commit(lake: Lakehouse) -> None:
    lake.commit([Append(SALES, sales(MONDAY, 6))], BY)


def test_a_read_during_which_files_were_merged_is_asked_again(sqlite_lake: Lakehouse) -> None:
    *_, last = days(sqlite_lake, 3)
    for at in (None, last):
        commit(sqlite_lake)
        assert times_asked(sqlite_lake, lambda: maintain(sqlite_lake), at) == 2
        assert times_asked(sqlite_lake, lambda: commit(sqlite_lake), at) == 1


def merge(lake: Lakehouse) -> None:
    with lake.connection(read_only=False) as connection:
        connection.execute("CALL ducklake_merge_adjacent_files('lake', 'sales', schema => 'shop')")


def test_a_read_beside_a_compaction_is_asked_again_only_where_that_commits_meanwhile(sqlite_lake: Lakehouse) -> None:
    days(sqlite_lake, 3)
    with compaction(sqlite_lake.settings):
        assert times_asked(sqlite_lake, lambda: commit(sqlite_lake)) == 1
        assert times_asked(sqlite_lake, lambda: merge(sqlite_lake)) == 2
        assert times_asked(sqlite_lake, lambda: commit(sqlite_lake)) == 1


def number_of_compactions(lake: Lakehouse) -> Path:
    return lock_folder(lake.settings) / "compactions"


@pytest.mark.parametrize("left", [b"1", b""], ids=["killed", "power failure"])
def test_after_a_compaction_that_was_cut_off_readers_look_closer_until_the_next_maintenance(
    sqlite_lake: Lakehouse, left: bytes
) -> None:
    days(sqlite_lake, 3)
    with compaction(sqlite_lake.settings):
        assert number_of_compactions(sqlite_lake).read_bytes() == b"1"
    number_of_compactions(sqlite_lake).write_bytes(left)
    assert times_asked(sqlite_lake, lambda: merge(sqlite_lake)) == 2
    assert times_asked(sqlite_lake, lambda: commit(sqlite_lake)) == 1
    maintain(sqlite_lake)
    assert int(number_of_compactions(sqlite_lake).read_bytes()) % 2 == 0


def test_a_compaction_that_fails_is_over(sqlite_lake: Lakehouse) -> None:
    days(sqlite_lake, 1)
    with pytest.raises(RuntimeError), compaction(sqlite_lake.settings):
        raise RuntimeError
    assert number_of_compactions(sqlite_lake).read_bytes() == b"2"


def test_maintenance_does_not_run_beside_a_writer_and_a_writer_waits_for_it(lake: Lakehouse) -> None:
    lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    hurried = with_limits(lake, lock_timeout_seconds=0.2)
    with table_locks(lake.settings, ["shop.sales"]), pytest.raises(LakeError, match=r"shop\.sales is being written"):
        maintain(hurried)
    with ThreadPoolExecutor(1) as pool:
        with table_locks(lake.settings, ["maintenance", "shop.sales"]):
            waiting = pool.submit(lake.commit, [ReplaceTable(SALES, sales(MONDAY, 2))], BY)
            until = monotonic() + 0.5
            while monotonic() < until:
                assert not waiting.done()
                assert lake.read("shop.sales")["units"].to_list() == [1]
        waiting.result(timeout=30)
    assert lake.read("shop.sales")["units"].to_list() == [2]


def age(path: Path) -> Path:
    os.utime(path, (0, 0))
    return path


def test_what_killed_processes_left_is_removed_once_it_is_old(sqlite_lake: Lakehouse) -> None:
    sqlite_lake.commit([ReplaceTable(SALES, sales(MONDAY, 1))], BY)
    home = sqlite_lake.settings.home
    (home / "spool" / "young").mkdir(parents=True)
    (home / "models").mkdir()
    left = [home / "spool" / "old", home / "models" / ".version.abc", home / "locks" / "content-1.lock"]
    for path in left[:2]:
        path.mkdir()
        (path / "part").write_text("x")
    left[2].write_text("")
    orphan = sqlite_lake.settings.lake_data / "shop" / "sales" / "orphan.parquet"
    orphan.write_bytes(b"half a file")
    for path in (*left, orphan):
        age(path)

    report = maintain(sqlite_lake)

    assert (report.leftovers_removed, report.orphans_removed, report.bytes_removed) == (3, 1, 11)
    assert [path for path in (*left, orphan) if path.exists()] == []
    assert (home / "spool" / "young").exists()


def test_maintenance_works_in_object_storage(object_storage: ObjectStorage, settings: Settings) -> None:
    lake = Lakehouse(object_storage.settings(settings, file_guard_hours=0))
    days(lake, 3)
    lake.commit([ReplaceSlices(SALES, sales(MONDAY, 9), [{"day": MONDAY, "store": "S0"}])], BY)
    before = lake.read("shop.sales")

    assert maintain(lake, now=A_MONTH_ON).files_removed > 0
    assert_frame_equal(lake.read("shop.sales"), before, check_row_order=False)
    assert fsck(lake, orphans_older_than=timedelta(0)) == []


actions = st.lists(
    st.one_of(
        st.tuples(st.just("replace"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(st.just("append"), st.integers(0, 3), st.integers(1, 4)),
        st.tuples(st.just("delete"), st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.just("maintain"), st.integers(0, 40), st.integers(0, 40)),
    ),
    min_size=4,
    max_size=7,
)


@given(actions=actions)
@effort(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_written_between_maintenances_every_kept_snapshot_reads_as_it_was_written(
    actions: list[tuple[str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("lake") / "home"
    lake = Lakehouse(Settings(home=home, lake=LakeSettings(memory_limit="500MB", file_guard_hours=0)))
    written = {lake.commit([ReplaceTable(SALES, sales(MONDAY, 1, 2, 3))], BY).snapshot_id: lake.read("shop.sales")}
    for action, first, second in actions:
        day = MONDAY + timedelta(days=first)
        if action == "replace":
            lake.commit([ReplaceSlices(SALES, sales(day, *range(second)), [{"day": day}])], BY)
        elif action == "append":
            lake.commit([Append(SALES, sales(day, *range(second)))], BY)
        elif action == "delete":
            lake.commit([ReplaceSlices(SALES, SALES.empty(), [{"day": day, "store": f"S{second}"}])], BY)
        else:
            maintain(lake, now=datetime.now(UTC) + timedelta(days=first))
        written[lake.snapshot_id()] = lake.read("shop.sales")
    kept = set(lake.snapshots()["snapshot_id"]) & set(written)
    assert max(written) in kept
    for at in kept:
        assert sorted(lake.read("shop.sales", at=at).rows()) == sorted(written[at].rows())
    assert fsck(lake, orphans_older_than=timedelta(0), deep=True) == []


def test_a_reader_who_meets_compactions_again_and_again_keeps_the_next_one_waiting(sqlite_lake: Lakehouse) -> None:
    days(sqlite_lake, 1)
    hurried = with_limits(sqlite_lake, lock_timeout_seconds=0.2)
    said: list[str] = []

    def slow_read() -> pl.DataFrame:
        """In its time a maintenance goes by, which merges files if it may."""
        sqlite_lake.commit([Append(SALES, sales(MONDAY, 1))], BY)
        try:
            maintain(hurried)
            said.append("merged")
        except LakeError as error:
            said.append(str(error))
        with sqlite_lake.connection() as connection:
            return connection.execute("FROM shop.sales").pl()

    assert sqlite_lake._settled(slow_read).height == 6
    assert said[:3] == ["merged"] * 3
    assert "shop.sales: files are being merged" in said[3]
    maintain(hurried)
