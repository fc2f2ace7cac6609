"""Measure the peak memory of a training step.

`python docs/memory_peaks.py` prints the table in speed.md; with names, of these models only. Each
measurement runs in its own process, on one thread.
"""

import sys

import torch

from zoo.bench.speed import Case, measure_peak

#: The peaks of the papers' code in GiB, where it was measured, and None elsewhere.
PAPERS = {
    "convlstm": 3.12,
    "ms-convlstm": None,
    "predrnn": None,
    "ms-predrnn": None,
    "predrnnpp": 7.68,
    "mim": None,
    "modernn": 9.42,
    "trajgru": 5.71,
    "mklstm": 3.84,
    "mslstm": 2.19,
}


def main() -> None:
    """Print the table, row by row."""
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PAPERS:
        case = Case(name, mode="train", batch=4)  # 10 input and 10 forecast frames of 64×64
        peak, paper = measure_peak(case) / 2**30, PAPERS.get(name)
        print(f"| {name} | {peak:.2f} GiB | {f'{paper:.2f} GiB' if paper else ''} |", flush=True)


if __name__ == "__main__":
    main()
