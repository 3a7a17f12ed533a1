"""JSON from an HTTP service that may be slow, busy, broken or down.

Here: attempts with exponential backoff and jitter, `Retry-After`, limits of time and size, and a cache of answers on
disk. Not here: what an answer means (`sources/open_meteo.py`, `sources/fred.py`).

Secrets are query parameters of some services: no message, log line or cache file has the query of a request.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from retail_platform.settings import FredSource, OpenMeteoSource
from retail_platform.sources.extracts import SourceError

if TYPE_CHECKING:
    import httpx

_BUSY_OR_BROKEN = {408, 425, 429, 500, 502, 503, 504, 529}
_NOT_MODIFIED = 304
_LARGEST_ANSWER_BYTES = 64 * 1024**2
_FORGOTTEN_AFTER_DAYS = 30
_WORDS_OF_A_REFUSAL = ("reason", "error_message", "message")


class _Passing(Exception):
    """What another attempt may mend."""

    def __init__(self, what: str, retry_after: float = 0) -> None:
        super().__init__(what)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Request:
    """A GET request. `closed` says that its answer is of the past and will not change any more."""

    url: str
    parameters: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    closed: bool = False


class JsonClient:
    """Asks one source. Used with `with`; `cache` is the folder of its answers, None for no cache."""

    def __init__(self, name: str, source: OpenMeteoSource | FredSource, cache: Path | None) -> None:
        import httpx

        # The library would log every address with its query.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._name, self._source, self._cache = name, source, cache
        self._client = httpx.Client(timeout=source.timeout_seconds, headers={"Accept": "application/json"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, request: Request, check: Callable[[Any], None]) -> Any:
        """The answer to a request, from the cache where it is closed or the service says that it has not changed.

        `check` raises `SourceError` for an answer that is not what was asked for; such an answer is not kept. Raises
        `SourceError` where the service refuses, or does not answer within the attempts of the settings.
        """
        kept = self._kept(request)
        if kept and request.closed:
            check(kept["answer"])
            return kept["answer"]
        try:
            for attempt in self._attempts():
                with attempt:
                    answer, headers = self._ask(request, kept or {})
        except _Passing as passing:
            raise SourceError(
                f"source {self._name}: {_place(request.url)} does not answer: {passing}, in {self._source.attempts} "
                "attempts; the next run asks again"
            ) from None
        check(answer)
        if headers is not None:
            self._keep(request, answer, headers)
        return answer

    def _attempts(self) -> Retrying:
        source = self._source
        backoff = wait_random_exponential(multiplier=source.first_wait_seconds, max=source.longest_wait_seconds)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(backoff(state), error.retry_after if isinstance(error, _Passing) else 0)

        return Retrying(
            retry=retry_if_exception_type(_Passing), stop=stop_after_attempt(source.attempts), wait=wait, reraise=True
        )

    def _ask(self, request: Request, kept: Mapping[str, Any]) -> tuple[Any, Mapping[str, str] | None]:
        """One attempt: the answer and its headers; the kept answer without headers where it still holds."""
        import httpx

        conditions = {"If-None-Match": kept.get("etag"), "If-Modified-Since": kept.get("last_modified")}
        headers = {name: value for name, value in conditions.items() if value}
        parameters = {**request.parameters, **request.secrets}
        try:
            with self._client.stream("GET", request.url, params=parameters, headers=headers) as response:
                body = self._read(response)
        except httpx.TimeoutException:
            raise _Passing(f"no answer within {self._source.timeout_seconds:g} s") from None
        except httpx.RequestError as error:
            raise _Passing(f"the connection failed ({type(error).__name__})") from None
        status = response.status_code
        if status == _NOT_MODIFIED and kept:
            return kept["answer"], None
        if status in _BUSY_OR_BROKEN:
            raise _Passing(f"status {status}", self._asked_to_wait(request, response))
        if status != httpx.codes.OK:
            raise SourceError(
                f"source {self._name}: {_place(request.url)} refused with status {status}"
                f"{self._reason(request, body)}; mend [sources.{self._name}] in retail.toml or the key"
            )
        try:
            return json.loads(body), response.headers
        except ValueError:
            raise _Passing("the answer is not whole JSON") from None

    def _read(self, response: "httpx.Response") -> bytes:
        body, began = bytearray(), monotonic()
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _LARGEST_ANSWER_BYTES:
                raise SourceError(
                    f"source {self._name}: the answer is larger than {_LARGEST_ANSWER_BYTES // 1024**2} MB; ask for "
                    "less, with a later start"
                )
            if monotonic() - began > 5 * self._source.timeout_seconds:
                raise _Passing("the answer came too slowly")
        return bytes(body)

    def _asked_to_wait(self, request: Request, response: "httpx.Response") -> float:
        seconds = retry_after_seconds(response.headers.get("Retry-After", ""), datetime.now(UTC))
        if seconds > self._source.longest_wait_seconds:
            raise SourceError(
                f"source {self._name}: {_place(request.url)} asks to come back in {seconds:.0f} s; the next run asks "
                "again"
            )
        return seconds

    def _reason(self, request: Request, body: bytes) -> str:
        try:
            said = json.loads(body)
        except ValueError:
            return ""
        words = next((said[key] for key in _WORDS_OF_A_REFUSAL if key in said), "") if isinstance(said, dict) else ""
        text = str(words)[:200]
        for value in request.secrets.values():
            text = text.replace(value, "***")
        return f" ({text})" if text else ""

    def _file(self, request: Request) -> Path | None:
        identity = json.dumps([request.url, dict(request.parameters)], sort_keys=True)
        return self._cache / f"{hashlib.sha256(identity.encode()).hexdigest()}.json" if self._cache else None

    def _kept(self, request: Request) -> dict[str, Any] | None:
        file = self._file(request)
        try:
            kept = json.loads(file.read_text(encoding="utf-8")) if file else None
        except (OSError, ValueError):
            return None
        return kept if isinstance(kept, dict) and "answer" in kept else None

    def _keep(self, request: Request, answer: Any, headers: Mapping[str, str]) -> None:
        """Keep an answer that may serve again, and forget those that did not for long."""
        etag, modified = headers.get("ETag"), headers.get("Last-Modified")
        file = self._file(request)
        if file is None or not (request.closed or etag or modified):
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = {"url": request.url, "parameters": dict(request.parameters), "closed": request.closed}
        partial = file.with_suffix(f".{os.getpid()}")
        partial.write_text(
            json.dumps({**kept, "etag": etag, "last_modified": modified, "answer": answer}), encoding="utf-8"
        )
        partial.replace(file)
        oldest = datetime.now(UTC).timestamp() - _FORGOTTEN_AFTER_DAYS * 86_400
        for other in file.parent.glob("*.json"):
            if other.stat().st_mtime < oldest and '"closed": false' in other.read_text(encoding="utf-8")[:2_000]:
                other.unlink(missing_ok=True)


def retry_after_seconds(value: str, now: datetime) -> float:
    """The header `Retry-After`, seconds or a date, as seconds from `now`; 0 where it is missing or neither."""
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def _place(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"
