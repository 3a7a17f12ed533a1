"""Runs whose process is gone, and that Dagster would take for running for hours.

A run of the daemon that dies is noticed by the server that started it. One of the command line is nobody's child, and
no run outlives a machine that went down. A dead run would hold the sensors back, which wait for what is under way, and
keep its place among the few that may run at once. Not here: doing its work again, which the sensors and the command
line do by themselves.
"""

import os
import socket
from pathlib import Path

import dagster as dg

PROCESS = "retail_platform/process"
"""Tag of a run of the command line: machine, process and its start, as the kernel counts it."""

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


def give_up_dead_runs(instance: dg.DagsterInstance, *, of_daemon: bool = False) -> list[str]:
    """Record that dead runs have failed; their ids. With `of_daemon` also those that a daemon began: when the daemon
    itself is just being started, the one that began them is gone.
    """
    running = instance.get_runs(dg.RunsFilter(statuses=_RUNNING))
    dead = [run for run in running if is_dead(run) or (of_daemon and PROCESS not in run.tags)]
    for run in dead:
        instance.report_run_failed(run, "The process of this run ended without a word, and the run was given up.")
    return [run.run_id for run in dead]


def _identity(process: int) -> str:
    try:
        # What follows the name, which may hold anything: the state, and as the 20th field the start in ticks.
        state, *facts = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return f"{socket.gethostname()} {process} ended"
    return f"{socket.gethostname()} {process} {'ended' if state == 'Z' else f'{boot} {facts[18]}'}"
