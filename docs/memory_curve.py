"""Measure memory and time of a training step by `memory.checkpoint_every`; see training.md.

`python docs/memory_curve.py` prints a table. Each value has processes of its own, taken in turn.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

EVERY = (0, 1, 2, 5, 10)  # 0 is without
ROUNDS = 2


def measure(every: int) -> tuple[float, float]:
    """The peak of the memory in MB beyond what was taken before, and processor seconds."""
    import torch

    import zoo
    from zoo.train.objective import Objective

    torch.manual_seed(0)
    model = zoo.create("convlstm", hidden=32, layers=6)
    objective = Objective(model, checkpoint_every=every or None)
    frames, fed = torch.rand(1, 20, 1, 64, 64), torch.rand(1, 19) < 0.5
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    objective(frames, fed).sum().backward()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    started = time.process_time()
    objective(frames, fed).sum().backward()
    return peak, time.process_time() - started


def main() -> None:
    """Print the table."""
    found: dict[int, list[tuple[float, float]]] = {every: [] for every in EVERY}
    for _ in range(ROUNDS):
        for every in EVERY:
            command = [sys.executable, __file__, str(every)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[every].append(json.loads(told))
    whole = statistics.median(seconds for _, seconds in found[0])
    print("| `checkpoint_every` | memory (MB) | time |\n|---|---|---|")
    for every, values in found.items():
        peak, seconds = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {every or 'not set'} | {peak:.0f} | {seconds / whole:.2f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
