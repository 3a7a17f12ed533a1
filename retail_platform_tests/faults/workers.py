"""Worker processes as the scenarios see them: started ahead, given an order, killed or awaited."""

import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from retail_platform_tests.faults.worker import Order

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Ended:
    """How a worker ended: the numbers that it acknowledged, and the seconds until the first of them."""

    code: int
    acknowledged: tuple[int, ...]
    first_after: float
    errors: str


class Worker:
    """A running worker process."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the worker has ended
        self.process = subprocess.Popen(
            [sys.executable, "-m", "retail_platform_tests.faults.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        self._said: list[str] = []
        self._listener = Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.endswith("\n"):  # what it says of a write counts only if the whole line came through
                self._said.append(line)

    def begin(self, order: Order) -> None:
        """Give it its order, once it has loaded its libraries."""
        self._await_lines(1)
        assert self.process.stdin is not None
        self.process.stdin.write(order.as_line())
        self.process.stdin.flush()

    def await_acknowledged(self, count: int) -> None:
        """Wait until so many writes are acknowledged, or the process has ended."""
        self._await_lines(1 + count)

    def kill(self) -> Ended:
        self.process.kill()
        return self.end()

    def end(self) -> Ended:
        """Wait for its end."""
        late = ""
        try:
            self.process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            late = f"it did not end within {TIMEOUT_SECONDS} s"
        self._listener.join()
        self._errors.seek(0)
        errors = self._errors.read().decode() + late
        self._errors.close()
        acks = [line.split() for line in self._said if line.startswith("ack ")]
        first_after = float(acks[0][2]) if acks else 0.0
        return Ended(self.process.returncode, tuple(int(ack[1]) for ack in acks), first_after, errors)

    def _await_lines(self, count: int) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self._said) < count and self._listener.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)


@contextmanager
def workers(count: int, ahead: int = 2) -> Iterator[Callable[[Order], Worker]]:
    """Gives `count` workers, started up to `ahead` before they are needed: loading libraries takes longer than most
    writes.
    """
    waiting: deque[Worker] = deque()
    started = 0

    def begin(order: Order) -> Worker:
        nonlocal started
        while started < count and len(waiting) <= ahead:
            waiting.append(Worker())
            started += 1
        worker = waiting.popleft()
        worker.begin(order)
        return worker

    try:
        yield begin
    finally:
        for worker in waiting:
            worker.kill()
