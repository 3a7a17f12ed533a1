"""How long a training still takes."""

from retail_platform.orchestration.progress import with_time_left


def test_a_line_that_counts_rounds_says_how_long_the_rest_takes() -> None:
    lines: list[str] = []
    times = iter([0.0, 30.0, 30.0, 40.0, 100.0, 109.0, 109.0])
    tell = with_time_left(lines.append, lambda: next(times))
    tell("training A: 1,000 rows")
    tell("training A: 20 of 200 rounds")
    tell("fold 2 of 5: forecasting")
    assert lines == [
        "training A: 1,000 rows",
        "training A: 20 of 200 rounds, about 270 s left",
        "fold 2 of 5: forecasting",
    ]


def test_a_training_that_begins_anew_is_timed_anew() -> None:
    lines: list[str] = []
    times = iter([0.0, 30.0, 30.0, 100.0, 109.0, 109.0])
    tell = with_time_left(lines.append, lambda: next(times))
    for _ in range(2):
        tell("training A: 1,000 rows")
        tell("training A: 20 of 200 rounds")
    assert lines[1] == "training A: 20 of 200 rounds, about 270 s left"
    assert lines[3] == "training A: 20 of 200 rounds, about 81 s left"
