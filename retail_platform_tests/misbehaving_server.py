"""A local HTTP server that answers as it is told, well or badly, and remembers what it was asked.

Here: the server and the misbehaviours. Not here: what any service would answer (the tests of each source).
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Asked:
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """An answer; `cut_off` closes the connection in the middle of the body, `delay` is in seconds."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_off: bool = False
    delay: float = 0


Responder = Callable[[Asked], Any]


class MisbehavingServer:
    """`answers` are given first, each once; after them `responder` gives a body or an `Answer` for each question."""

    def __init__(self, url: str, responder: Responder) -> None:
        self.url, self.responder = url, responder
        self.answers: deque[Answer] = deque()
        self.asked: list[Asked] = []

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if self.answers:
            return self.answers.popleft()
        given = self.responder(asked)
        return given if isinstance(given, Answer) else Answer(given)


@contextmanager
def misbehaving_server(responder: Responder) -> Iterator[MisbehavingServer]:
    """A server on a free loopback port, stopped at the end."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            answer = server.answer(Asked(parts.path, dict(parse_qsl(parts.query)), dict(self.headers)))
            time.sleep(answer.delay)
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if answer.status != 304:
                    self.wfile.write(body[: len(body) // 2] if answer.cut_off else body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True
            if answer.cut_off:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing: the tests ask `asked`."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    server = MisbehavingServer(f"http://127.0.0.1:{listener.server_port}", responder)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
