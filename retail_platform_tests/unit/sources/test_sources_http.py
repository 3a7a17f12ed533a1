"""The HTTP client against a server that misbehaves: what it bears, what it gives up, what it keeps."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from retail_platform.settings import FredSource
from retail_platform.sources.extracts import SourceError
from retail_platform.sources.http import JsonClient, Request, retry_after_seconds
from retail_platform_tests.misbehaving_server import Answer, MisbehavingServer, misbehaving_server

KEY = "k3y-of-the-retailer"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[MisbehavingServer]:
    with misbehaving_server(lambda _: {"good": True}) as running:
        yield running


def ask(server: MisbehavingServer, cache: Path | None = None, *, closed: bool = False, **changes: Any) -> Any:
    values = {"attempts": 3, "first_wait_seconds": 0.01, "longest_wait_seconds": 2, "timeout_seconds": 5, **changes}
    source = FredSource.model_validate(
        {"kind": "fred", "series": {"x": {"id": "X", "unit": "%"}}, "api_key_variable": "X_KEY", **values}
    )
    request = Request(f"{server.url}/data", {"day": "1"}, {"api_key": KEY}, closed=closed)
    with JsonClient("economy", source, cache) as client:
        return client.get(request, lambda _: None)


@pytest.mark.parametrize(
    "misbehaviour",
    [
        Answer(status=500),
        Answer(status=503, headers={"Retry-After": "0"}),
        Answer({"much": "data" * 1000}, cut_off=True),
        Answer(b'{"half": '),
        Answer(b"<html>busy</html>", headers={"Content-Type": "text/html"}),
        Answer(b"no gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=["500", "503", "cut off", "half JSON", "HTML", "broken gzip"],
)
def test_what_passes_is_borne_twice(server: MisbehavingServer, misbehaviour: Answer) -> None:
    server.answers.extend([misbehaviour] * 2)
    assert ask(server) == {"good": True}
    assert len(server.asked) == 3


def test_silence_is_not_waited_out(server: MisbehavingServer) -> None:
    server.answers.append(Answer({}, delay=1.5))
    began = monotonic()
    assert ask(server, timeout_seconds=0.3) == {"good": True}
    assert monotonic() - began < 1.4


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_busy_service_is_left_alone_as_long_as_it_asks(server: MisbehavingServer, form: str) -> None:
    # A date has whole seconds, so that it may be up to one second nearer.
    day = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    server.answers.append(Answer(status=429, headers={"Retry-After": "1" if form == "seconds" else day}))
    began = monotonic()
    assert ask(server) == {"good": True}
    assert monotonic() - began >= 0.9


def test_a_service_that_asks_for_more_time_than_a_run_has_is_given_up_at_once(server: MisbehavingServer) -> None:
    server.answers.append(Answer(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(SourceError, match="asks to come back in 3600 s; the next run asks again"):
        ask(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7), ("Sun, 01 Mar 2026 12:00:30 GMT", 30), ("Sun, 01 Mar 2026 11:00:00 GMT", 0), ("soon", 0), ("", 0)],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after_seconds(value, NOW) == seconds


def test_a_service_that_is_down_for_good_ends_after_the_attempts(server: MisbehavingServer) -> None:
    server.responder = lambda _: Answer(status=502)
    with pytest.raises(SourceError, match=r"127\.0\.0\.1/data does not answer: status 502, in 3 attempts"):
        ask(server)
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 404])
def test_a_refusal_is_not_tried_again_and_says_the_service_s_reason(server: MisbehavingServer, status: int) -> None:
    server.responder = lambda _: Answer({"reason": f"bad key {KEY}"}, status, {"Location": "/elsewhere"})
    with pytest.raises(SourceError, match=rf"refused with status {status} \(bad key \*\*\*\)"):
        ask(server)
    assert len(server.asked) == 1


def test_no_message_log_or_file_has_the_key(
    server: MisbehavingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ask(server, tmp_path, closed=True)
    assert server.asked[0].query["api_key"] == KEY
    server.responder = lambda _: Answer(status=500)
    with pytest.raises(SourceError) as given_up:
        ask(server)
    texts = [str(given_up.value), caplog.text, *(file.read_text() for file in tmp_path.iterdir())]
    assert [text for text in texts if KEY in text] == []


def test_an_answer_of_a_closed_period_is_asked_for_once(server: MisbehavingServer, tmp_path: Path) -> None:
    assert [ask(server, tmp_path, closed=True) for _ in range(3)] == [{"good": True}] * 3
    assert len(server.asked) == 1
    next(tmp_path.iterdir()).write_text("{broken", encoding="utf-8")
    assert ask(server, tmp_path, closed=True) == {"good": True}
    assert len(server.asked) == 2, "a broken file in the cache is no answer"


def test_an_answer_that_has_not_changed_is_taken_from_the_cache_and_a_changed_one_is_not(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    def by_tag(asked: Any) -> Answer:
        same = asked.headers.get("If-None-Match") == f'"{version}"'
        return Answer(status=304) if same else Answer({"version": version}, headers={"ETag": f'"{version}"'})

    version = 1
    server.responder = by_tag
    assert [ask(server, tmp_path) for _ in range(2)] == [{"version": 1}] * 2
    version = 2
    assert ask(server, tmp_path) == {"version": 2}
    assert [bool(asked.headers.get("If-None-Match")) for asked in server.asked] == [False, True, True]


def test_an_answer_without_a_tag_is_asked_for_again(server: MisbehavingServer, tmp_path: Path) -> None:
    ask(server, tmp_path)
    ask(server, tmp_path)
    assert len(server.asked) == 2
    assert list(tmp_path.iterdir()) == []
