"""kill -9 of writers, at random moments and at named points of a commit; the law is that of `books.py`."""

import random
import time
from collections.abc import Callable

from retail_platform.lakehouse import Lakehouse
from retail_platform.lakehouse.lakehouse import CommitStep
from retail_platform_tests.faults.books import SEED, Books, Writing, killed, law, leftovers, write_on
from retail_platform_tests.faults.ground import Ground, Outcome
from retail_platform_tests.faults.worker import Order
from retail_platform_tests.faults.workers import workers


def kill_at(point: CommitStep) -> Callable[[Ground, int], Outcome]:
    """A scenario whose writers kill themselves at `point` of their first, second, third or fourth commit."""

    def play(ground: Ground, rounds: int) -> Outcome:
        return _kill(ground, rounds, point)

    return play


def kill_at_random(ground: Ground, rounds: int) -> Outcome:
    """Writers are killed from outside, within 0.8 s after they began or had a write acknowledged."""
    return _kill(ground, rounds, None)


def kill_while_creating(ground: Ground, rounds: int) -> Outcome:
    """The first writer of a home is killed within 0.4 s: the lake may be half made. The second makes it."""
    chance = random.Random(SEED)  # noqa: S311
    violations: list[str] = []
    without = 0
    with workers() as begin:
        for number in range(rounds):
            with ground.home() as settings:
                worker = begin(Order(home=str(settings.home), catalog=settings.catalog, job="ingest"))
                time.sleep(chance.uniform(0, 0.4))
                ended = worker.kill()
                books = Books(max(ended.acknowledged, default=-1))
                without += not ended.acknowledged
                lake = Lakehouse(settings)
                broken = law(lake, "ingest", books)
                broken += write_on(lake, "ingest", books) + leftovers(lake)[1]
                violations += [f"round {number}: {words}" for words in broken]
    return Outcome(rounds, f"{without} homes in which nothing had been acknowledged yet", tuple(violations))


def _kill(ground: Ground, rounds: int, point: CommitStep | None) -> Outcome:
    chance = random.Random(f"{SEED} {point}")  # noqa: S311
    with ground.home() as settings, workers() as begin:
        lake, writing = Lakehouse(settings), Writing(settings, chance)
        for number in range(rounds):
            order = writing.order(number, point)
            worker = begin(order)
            if point is None:
                worker.await_acknowledged(chance.randint(0, 2))
                time.sleep(chance.uniform(0, 0.8))
                ended = worker.kill()
            else:
                ended = worker.end()
            writing.judge(number, lake, order, ended, killed(ended))
        return writing.outcome(rounds, lake)
