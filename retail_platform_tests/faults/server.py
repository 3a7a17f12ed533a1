"""The server of a PostgreSQL catalog is killed while writers write: the whole of it, or one of its sessions.

The law is that of `books.py`, and: the writer is told in a `LakeError`, and whoever comes after the server is back
goes on, also a process that had read before.

Seldom, about once in hundreds of rounds, DuckDB 1.5.5 cannot roll back over the dead connection and ends the process
(an exception in a destructor). Nobody can catch that; it counts as the writer's death, of which the books have to know
no more than of any other, and the outcome says how often it came.
"""

import os
import random
import signal
import time

import psycopg

from retail_platform.lakehouse import Lakehouse
from retail_platform_tests.faults.books import SEED, Writing
from retail_platform_tests.faults.ground import CannotRun, Ground, Outcome
from retail_platform_tests.faults.workers import Ended, Worker, workers
from retail_platform_tests.postgres import KillablePostgres, killable_postgres, postgres_binaries

VICTIMS = ("server", "session")
_ABORTED, _CANNOT_ROLL_BACK = -signal.SIGABRT, 'Failed to execute query \\"ROLLBACK\\"'


def kill_server(ground: Ground, rounds: int) -> Outcome:
    """In turn the server is killed and started again, and one of its sessions is killed, so that it recovers."""
    binaries = postgres_binaries()
    if binaries is None:
        raise CannotRun("no PostgreSQL server found")
    chance = random.Random(f"{SEED} server")  # noqa: S311
    told = died = 0
    with (
        killable_postgres(binaries) as postgres,
        Ground(ground.folder, "postgres", postgres.server).home() as settings,
        workers() as begin,
    ):
        lake, writing = Lakehouse(settings), Writing(settings, chance)
        for number in range(rounds):
            order = writing.order(number)
            worker = begin(order)
            worker.await_acknowledged(chance.randint(1, 3))
            time.sleep(chance.uniform(0, 0.1))
            if VICTIMS[number % len(VICTIMS)] == "server":
                postgres.kill()
                ended = worker.end()
                postgres.start_again()
                wrong = _not_told(ended)
            else:
                _kill_a_session(postgres, settings.catalog, chance)
                ended = _told_or_goes_on(worker)
                postgres.await_answer()
                wrong = "" if ended.code == -9 else _not_told(ended)
            told += ended.code == 1
            died += ended.code == _ABORTED
            writing.judge(number, lake, order, ended, wrong)
        words = f"{told} writers told by an error, {rounds - told - died} went on; "
        if died:
            words = f"{died} ended by DuckDB, which could not roll back, {words}"
        return writing.outcome(rounds, lake, words)


def _told_or_goes_on(worker: Worker) -> Ended:
    """How the writer ended. One that was between two commits connects again and goes on, and is killed after a while."""
    deadline = time.monotonic() + 5
    while worker.is_running and time.monotonic() < deadline:
        time.sleep(0.01)
    return worker.kill() if worker.is_running else worker.end()


def _not_told(ended: Ended) -> str:
    """What is wrong with the end of a writer whose server was killed."""
    if ended.code == 1 and "lakehouse.connection.LakeError: " in ended.errors:
        return ""
    if ended.code == _ABORTED and _CANNOT_ROLL_BACK in ended.errors:
        return ""
    return f"the writer was not told in a LakeError, it ended with {ended.code}: {ended.errors[-800:]}"


def _kill_a_session(postgres: KillablePostgres, address: str, chance: random.Random) -> None:
    """Kill -9 one of the sessions of this database; PostgreSQL then ends all others, too, and recovers."""
    with psycopg.connect(postgres.server.address("postgres"), autocommit=True) as connection:
        database = psycopg.conninfo.conninfo_to_dict(address)["dbname"]
        sessions = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = %s", [database]).fetchall()
        if sessions:
            os.kill(int(chance.choice(sessions)[0]), signal.SIGKILL)
