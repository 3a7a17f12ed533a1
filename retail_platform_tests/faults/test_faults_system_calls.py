"""The reading of a record of system calls: what is safe after them, and what a power loss takes."""

from pathlib import Path

import pytest

from retail_platform_tests.faults.system_calls import Disk, calls

MADE = '1 openat(AT_FDCWD, "{root}/a.parquet", O_RDWR|O_CREAT, 0666) = 3<{root}/a.parquet>'
WRITTEN = '1 write(3<{root}/a.parquet>, "rows", 4) = 4'
FORCED = "1 fsync(3<{root}/a.parquet>) = 0"
FOLDER_FORCED = "1 fsync(4<{root}>) = 0"
LINKED = '1 link("{root}/a.parquet", "{root}/b.parquet") = 0'


def after(root: Path, *lines: str) -> Disk:
    record = root.parent / "record"
    record.write_text("".join(line.format(root=root) + "\n" for line in lines))
    disk = Disk(root)
    for call in calls(record):
        disk.follow(call)
    return disk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lake"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        ((MADE, WRITTEN, FORCED, FOLDER_FORCED), []),
        ((MADE, FOLDER_FORCED, WRITTEN, FORCED), []),
        ((MADE, WRITTEN, FOLDER_FORCED), ["a.parquet was written to"]),
        ((MADE, FORCED, WRITTEN, FOLDER_FORCED), ["a.parquet was written to"]),
        ((MADE, WRITTEN, FORCED), ["the name"]),
        ((FOLDER_FORCED, MADE, WRITTEN, FORCED), ["the name"]),
        ((MADE, WRITTEN, "1 fsync(3<{root}/a.parquet>) = -1 EIO (no)", FOLDER_FORCED), ["a.parquet was written to"]),
        # A write that ends while fsync is under way is not in it, one that has ended before is.
        (
            (MADE, FORCED[:-5] + " <unfinished ...>", "2" + WRITTEN[1:], "1 <... fsync resumed>) = 0", FOLDER_FORCED),
            ["a.parquet was written to"],
        ),
        ((MADE, WRITTEN, FORCED[:-5] + " <unfinished ...>", "1 <... fsync resumed>) = 0", FOLDER_FORCED), []),
    ],
)
def test_a_file_is_safe_when_its_bytes_and_its_name_were_forced_to_disk_after_they_were_made(
    root: Path, lines: tuple[str, ...], lost: list[str]
) -> None:
    losses = after(root, *lines).losses(root / "a.parquet")
    assert len(losses) == len(lost)
    for words, expected in zip(losses, lost, strict=True):
        assert expected in words


def test_a_second_name_has_the_bytes_of_the_first_and_must_be_forced_to_disk_itself(root: Path) -> None:
    disk = after(root, MADE, WRITTEN, FORCED, FOLDER_FORCED, LINKED)
    assert disk.losses(root / "a.parquet") == []
    assert disk.losses(root / "b.parquet") == [f"the name {root / 'b.parquet'} was not forced to disk"]
    disk = after(root, MADE, WRITTEN, LINKED, FOLDER_FORCED, FORCED.replace("a.parquet", "b.parquet"))
    assert disk.losses(root / "a.parquet") == disk.losses(root / "b.parquet") == []


def test_a_power_loss_takes_bytes_and_names_that_were_not_forced_to_disk_and_nothing_else(root: Path) -> None:
    log = root / "log"
    log.write_bytes(b"old log.")
    disk = after(
        root,
        *(MADE, WRITTEN, FORCED),
        '1 pwrite64(5<{root}/log>, "OLD", 3, 0) = 3',
        '1 pwrite64(5<{root}/log>, "more", 4, 8) = 4',
    )
    (root / "a.parquet").write_bytes(b"rows")
    log.write_bytes(b"OLD log.more")

    assert disk.take_what_is_not_safe(below=lambda _: True) == 2
    assert not (root / "a.parquet").exists()
    assert log.read_bytes() == b"\0\0\0 log."
