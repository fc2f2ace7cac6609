"""Measure memory and time of a training step for values of `memory.checkpoint_every`.

`python docs/memory_curve.py` prints the table in training.md; with a number of frames and values,
such as `200 10 20`, of these, in one round. Each measurement runs in its own process.
"""

import json
import resource
import statistics
import subprocess
import sys
import time

EVERY = (0, 1, 2, 5, 10)  # 0: no checkpointing
ROUNDS = 2


def measure(length: int, every: int) -> tuple[float, float]:
    """Return peak memory above the baseline in MB, and CPU seconds."""
    import torch

    import zoo
    from zoo.train.objective import Objective

    torch.manual_seed(0)
    model = zoo.create("convlstm", hidden=32, layers=6)
    objective = Objective(model, checkpoint_every=every or None)
    frames, fed = torch.rand(1, length, 1, 64, 64), torch.rand(1, length - 1) < 0.5
    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    objective(frames, fed).sum().backward()
    seconds = time.process_time() - started
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - baseline) / 1024, seconds


def main(length: int = 20, *values: int) -> None:
    """Print the table."""
    results: dict[int, list[tuple[float, float]]] = {every: [] for every in values or EVERY}
    for _ in range(1 if values else ROUNDS):
        for every in results:
            command = [sys.executable, __file__, "one", str(length), str(every)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[every].append(json.loads(output))
    reference = statistics.median(seconds for _, seconds in next(iter(results.values())))
    print("| `checkpoint_every` | memory (MB) | time |\n|---|---|---|")
    for every, values in results.items():
        peak, seconds = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {every or 'not set'} | {peak:.0f} | {seconds / reference:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        print(json.dumps(measure(*map(int, sys.argv[2:]))))
    else:
        main(*map(int, sys.argv[1:]))
