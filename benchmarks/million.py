"""A million rows in one evaluation: is memory flat, and how long does a killed one take until it goes on?

    python benchmarks/million.py OUT.json [--rows 1000000] [--batch 1000] [--shape 1 8 8]

A linear network and images of this shape, or clips (--shape 3 16 32 32), which are made as they are asked for. FGSM. The evaluation is killed (-9) at half of the rows, and
started again. Memory is the resident set of its process, once for every 20 batches. The figure is drawn beside the record.
"""

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from normwise import Linf, evaluate
from normwise.attacks import FGSM
from normwise.records import provenance, to_json, write
from normwise.types import Batch

MIB = 2**20
EVERY = 20


class Generated(Sequence):
    """Batches of random images, the same ones each time."""

    def __init__(self, rows, size, shape):
        self.rows, self.size, self.shape = rows, size, shape

    def __len__(self):
        return self.rows // self.size

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = torch.Generator().manual_seed(index)
        x = torch.rand(self.size, *self.shape, generator=rng)
        return Batch(x, network(self.shape)(x).argmax(1), torch.arange(index * self.size, (index + 1) * self.size))


def network(shape):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), 10)).eval().requires_grad_(False)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def work(rows, size, shape, folder):
    """The evaluation itself: prints seconds since its start, batches done, and its memory."""
    torch.set_num_threads(1)
    started = time.perf_counter()

    def report(text, done, total):
        if done % EVERY == 0:
            print(f"{time.perf_counter() - started:.3f} {done} {resident():.1f}", flush=True)

    found = evaluate(
        network(shape), Generated(rows, size, shape), Linf(eps=0.02), FGSM(), folder=folder, report=report
    ).evaluation
    print(
        f"end {time.perf_counter() - started:.3f} {found.n} {found.robust_accuracy.value:.6f} {resident():.1f}", flush=True
    )


def started(given, folder, until=None):
    """What one process prints; it is killed at so many batches."""
    command = [sys.executable, __file__, "-", "--rows", str(given.rows), "--batch", str(given.batch), "--work", str(folder)]
    command += ["--shape", *map(str, given.shape)]
    lines, begun = [], time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            lines.append((time.perf_counter() - begun, line.split()))
            if until and int(lines[-1][1][1]) >= until:
                process.send_signal(signal.SIGKILL)
                break
    return lines


def drawn(path, kinds):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for label, points in kinds.items():
        axes.plot([rows for rows, _ in points], [memory for _, memory in points], label=label)
    axes.set(xlabel="rows", ylabel="resident memory (MiB)", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--shape", type=int, nargs="+", default=[1, 8, 8])
    parser.add_argument("--work", type=Path)
    given = parser.parse_args()
    if given.work:
        work(given.rows, given.batch, given.shape, given.work)
        return
    half = given.rows // given.batch // 2
    with tempfile.TemporaryDirectory() as folder:
        first = started(given, Path(folder) / "run", until=half)
        second = started(given, Path(folder) / "run")
    points = [[(int(done) * given.batch, float(memory)) for _, (_, done, memory) in lines] for lines in (first, second[:-1])]
    goes_on = next(seconds for seconds, words in second if int(words[1]) > half)
    (_, _, n, robust, last) = second[-1][1]
    record = {
        **provenance(),
        "rows": int(n),
        "shape": given.shape,
        "robust": float(robust),
        "seconds_until_it_goes_on": goes_on,
        "seconds": [first[-1][0], second[-1][0]],
        "memory_mib": {"killed": points[0], "resumed": points[1], "end": float(last)},
    }
    write(given.out, to_json(record))
    drawn(given.out.with_suffix(".png"), {"killed at half": points[0], "resumed": points[1]})
    lowest, highest = (pick(memory for _, memory in points[1]) for pick in (min, max))
    print(f"{n} rows; goes on after {goes_on:.1f} s; resumed: {lowest:.0f} to {highest:.0f} MiB, at the end {last} MiB")


if __name__ == "__main__":
    main()
