"""Runs whose process is gone, and that Dagster would take for running for hours.

A run of the daemon that dies is noticed by the server that started it. One of the command line is nobody's child, and
no run outlives a machine that went down. A dead run would hold the sensors back, which wait for what is under way, and
keep its place among the few that may run at once. Not here: doing its work again, which the sensors and the command
line do by themselves.
"""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

PROCESS = "retail_platform/process"
"""Tag of a run of the command line: machine, process and its start, as the kernel counts it."""

SILENCE_SECONDS = 300
"""A daemon says every half minute that it lives."""

_RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def process_tag() -> dict[str, str]:
    """The tag by which a run of this process is known to be alive or dead."""
    return {PROCESS: _identity(os.getpid())}


def is_dead(run: dg.DagsterRun) -> bool:
    """Whether the run is one of the command line, of this machine, and its process has ended."""
    machine, _, process = run.tags.get(PROCESS, "").partition(" ")
    if machine != socket.gethostname():
        return False
    return _identity(int(process.split()[0])) != run.tags[PROCESS]


def give_up_dead_runs(instance: dg.DagsterInstance, *, daemon_starts: bool = False) -> list[str]:
    """Record that dead runs have failed, and free the places that they hold in pools; their ids.

    A run of a daemon is dead where that daemon has been silent for minutes, or `daemon_starts` just now.
    """
    running = instance.get_runs(dg.RunsFilter(statuses=_RUNNING))
    without_daemon = daemon_starts or _daemon_is_silent(instance)
    dead = [run for run in running if is_dead(run) or (without_daemon and PROCESS not in run.tags)]
    for run in dead:
        instance.report_run_failed(run, "The process of this run ended without a word, and the run was given up.")
        # The next run of the same table would wait for its place for ever where no daemon sees to it.
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return [run.run_id for run in dead]


def _daemon_is_silent(instance: dg.DagsterInstance) -> bool:
    since = datetime.now(UTC).timestamp() - SILENCE_SECONDS
    return all(heartbeat.timestamp < since for heartbeat in instance.get_daemon_heartbeats().values())


def _identity(process: int) -> str:
    try:
        # What follows the name, which may hold anything: the state, and as the 20th field the start in ticks.
        state, *facts = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return f"{socket.gethostname()} {process} ended"
    return f"{socket.gethostname()} {process} {'ended' if state == 'Z' else f'{boot} {facts[18]}'}"
