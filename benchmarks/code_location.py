"""How long Dagster waits for the code location, which every step process pays again.

    python benchmarks/code_location.py --repeat 7

Imports `retail_platform.definitions` in fresh interpreters, after one run that compiles, and prints the median with
the spread, beside the import of Dagster alone in the same run.
"""

import argparse
import statistics
import subprocess
import sys
import time

STATEMENTS = {"dagster alone": "import dagster", "the code location": "import retail_platform.definitions"}


def seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    for statement in STATEMENTS.values():
        seconds(statement)
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(repeat):
        for name, statement in STATEMENTS.items():
            taken[name].append(seconds(statement))
    for name, values in taken.items():
        print(f"{name:20} median {statistics.median(values):.2f} s   ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
