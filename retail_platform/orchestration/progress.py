"""Lines of progress for a run's log, with the time that is left. Here: the clock. Not here: what is told."""

import re
import time
from collections.abc import Callable

_ROUNDS = re.compile(r"(?P<name>.+): (?P<done>\d+) of (?P<rounds>\d+) rounds")


def with_time_left(say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Callable[[str], None]:
    """Pass lines on to `say`; to one like "NAME: 20 of 200 rounds" add about how long the rest takes, judged by
    the time since NAME was last announced.
    """
    heard: dict[str, float] = {}

    def tell(line: str) -> None:
        rounds = _ROUNDS.fullmatch(line)
        if not rounds:
            # What is trained a second time is announced anew.
            heard[line.split(":", maxsplit=1)[0]] = clock()
            say(line)
            return
        since = clock() - heard.setdefault(rounds["name"], clock())
        if since > 0:
            left = since / int(rounds["done"]) * (int(rounds["rounds"]) - int(rounds["done"]))
            line += f", about {left:.0f} s left"
        say(line)

    return tell
