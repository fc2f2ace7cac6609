"""Measure how long commands take to start.

`python docs/start_up.py` prints the table in speed.md: medians of processes that run in turn, with
the start of Python.
"""

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import zoo": ["-c", "import zoo"],
    "zoo --help": ["-m", "zoo", "--help"],
    "zoo list": ["-m", "zoo", "list"],
}


def measure(arguments: list[str]) -> tuple[float, float]:
    """Return the CPU time and the elapsed time of a process in seconds."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    elapsed, after = time.perf_counter() - started, os.times()
    used = sum(after[2:4]) - sum(before[2:4])  # of child processes, user and system
    return used, elapsed


def main() -> None:
    """Print the table."""
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in COMMANDS}
    for n in range(ROUNDS + 1):
        for label, arguments in COMMANDS.items():
            measured = measure(arguments)
            if n:  # the first round fills caches
                times[label].append(measured)
    print("| | CPU time | elapsed |\n|---|---|---|")
    for label, values in times.items():
        cpu, elapsed = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| `{label}` | {cpu:.2f} s | {elapsed:.2f} s |")


if __name__ == "__main__":
    main()
