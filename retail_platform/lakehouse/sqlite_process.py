"""What SQLite's own library does with the catalog, in a process of its own: look for damage, or copy it.

DuckDB brings a SQLite of its own. Two of them in one process do not know of each other, and POSIX gives up every lock
that a process has on a file as soon as the process closes the file once: what Python's library closes would take away
the locks by which DuckDB's keeps other processes from the catalog's log, and the catalog would be damaged. So this file
is run as a script, needs nothing but the standard library, and nobody imports it.

    sqlite_process.py check FILE        prints what SQLite finds, one fault a line, or `ok`
    sqlite_process.py copy FILE COPY    a copy as of one moment, made while others write
"""

import sqlite3
import sys
from contextlib import closing


def main(job: str, file: str, *copy: str) -> None:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as catalog:
        if job == "check":
            for (found,) in catalog.execute("PRAGMA quick_check(5)"):
                print(found)  # noqa: T201 - the answer
            return
        with closing(sqlite3.connect(copy[0])) as target:
            catalog.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except sqlite3.Error as error:
        sys.exit(str(error))
