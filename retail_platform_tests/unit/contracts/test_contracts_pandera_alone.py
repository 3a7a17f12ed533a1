"""Pandera without pandas: what a process that is forked after the import may rely on."""

import subprocess
import sys

FORK = """
import os, signal
from retail_platform.contracts import TABLES

child = os.fork()
if child == 0:
    signal.alarm(30)
    for table in TABLES.values():
        table.validate(table.empty())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_contracts_are_checked_in_a_process_forked_after_their_import() -> None:
    """Importing once carried out a check, which starts the threads of Polars: every forked process then hung."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True)
