"""Time and memory of the demo: the whole path on the real receipts, in a home of its own.

    python benchmarks/demo.py

Runs `retail-platform demo` twice in a temporary home: the first does all the work, the second finds nothing new.
Prints wall seconds, CPU seconds and peak memory of each, as the operating system accounts for them.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [str(Path(sys.executable).with_name("retail-platform")), "demo"]


def run(name: str, home: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(COMMAND, check=True, env={**os.environ, "RETAIL_HOME": home}, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{name:12} {wall:7.1f} s wall   {cpu:7.1f} s CPU   peak memory so far {after.ru_maxrss / 2**20:.2f} GiB")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run("first demo", str(Path(folder) / "home"))
        run("second demo", str(Path(folder) / "home"))


if __name__ == "__main__":
    main()
