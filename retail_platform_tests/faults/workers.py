"""Worker processes as the scenarios see them: given an order, killed or awaited.

They are forked from a process that has loaded the libraries, which takes seconds and a fork hundredths of one. None
outlives the scenario that began it, nor the process that plays it.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread

from retail_platform_tests.faults.ground import TookTooLong
from retail_platform_tests.faults.worker import Acknowledged, Order, obey

REPOSITORY = Path(__file__).parents[2]

_processes = multiprocessing.get_context("forkserver")
# Of these, DuckDB imports pandas with the first parameter of a statement: half a second of each worker's time.
_PRELOADED = (
    "retail_platform_tests.faults.worker",
    "retail_platform.orchestration.runner",
    "pandas",
    "pyarrow.dataset",
)
_processes.set_forkserver_preload(list(_PRELOADED))


@dataclass(frozen=True)
class Ended:
    """How a worker ended: the numbers that it acknowledged, and the seconds until the first of them."""

    code: int
    acknowledged: tuple[int, ...]
    first_after: float
    errors: str


class Worker:
    """A running worker process. What it waits for, it waits for without end: the scenario's time limit ends it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self._heard: list[Acknowledged] = []
        self._errors = tempfile.NamedTemporaryFile(prefix="retail-faults-", suffix=".log")  # noqa: SIM115
        hears, says = _processes.Pipe(duplex=False)
        self._process = _processes.Process(target=obey, args=(order, says, self._errors.name), daemon=True)
        _start(self._process)
        says.close()
        # It would wait, too, if nobody listened.
        self._listener = Thread(target=self._listen, args=(hears,), daemon=True)
        self._listener.start()

    def _listen(self, hears: Connection) -> None:
        with hears:
            while True:
                try:
                    self._heard.append(hears.recv())
                except (EOFError, OSError):
                    # A killed worker may have stopped within a word, which then does not count.
                    return

    @property
    def so_far(self) -> str:
        """What it is at, for whoever waited too long for it."""
        writer = f" {self.order.writer}" if self.order.writer else ""
        state = "ended" if self._process.exitcode is not None else "is still at work"
        return f"{self.order.job}{writer} {state}, after {len(self._heard)} acknowledged"

    def await_acknowledged(self, count: int) -> None:
        """Wait until so many writes are acknowledged, or the process has ended."""
        while len(self._heard) < count and self._listener.is_alive():
            time.sleep(0.002)

    @property
    def is_running(self) -> bool:
        return self._process.exitcode is None

    def kill(self) -> Ended:
        self._process.kill()
        return self.end()

    def end(self) -> Ended:
        """Wait for its end."""
        self._process.join()
        self._listener.join()
        errors = Path(self._errors.name).read_text(encoding="utf-8", errors="replace")
        self._errors.close()
        code = self._process.exitcode
        assert code is not None
        first_after = self._heard[0].seconds if self._heard else 0.0
        return Ended(code, tuple(heard.number for heard in self._heard), first_after, errors)


def _start(process: multiprocessing.process.BaseProcess) -> None:
    """Start it; the process that it is forked from, which starts with the first, must find this package."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    try:
        process.start()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextmanager
def workers() -> Iterator[Callable[[Order], Worker]]:
    """Begins workers, and kills at the end whatever of them still runs.

    Where the time limit of the scenario interrupts it, the error says what each of them was at.
    """
    begun: list[Worker] = []

    def begin(order: Order) -> Worker:
        begun.append(Worker(order))
        return begun[-1]

    try:
        yield begin
    except TookTooLong as late:
        at = "; ".join(worker.so_far for worker in begun if worker.is_running) or "no worker was running"
        raise TookTooLong(f"{late}: {at}") from None
    finally:
        for worker in begun:
            if worker.is_running:
                worker.kill()
