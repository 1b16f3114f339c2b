"""An evaluation of 2,000 rows in one process and in two, one thread each.

    python benchmarks/shares.py OUT.json [--rows 2000] [--repeats 3] [--depth 8]

A ResNet of width 16 with random weights, random images of 32 x 32 pixels, labels as the network answers, FGSM and PGD-20 in a small ball, so
that few rows leave. The ways take turns. The third is two such evaluations side by side that know nothing of each other: what their
seconds allow is the bound of this machine, since two busy cores are slower than one. Seconds are of the clock, the start of processes included. On a busy machine
they mean little; so the processor's seconds of the longest way are told too: those of this process or of its child, whichever has more.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from normwise.attacks import FGSM, PGD
from normwise.data import ArrayFile
from normwise.experiments.evaluation_run import Evaluate, run_evaluation
from normwise.models import ResNet
from normwise.norms import BN
from normwise.records import provenance, to_json, write
from normwise.threats import Linf
from normwise.utils.workers import launched


def network():
    """The network: the same weights in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet(depth=int(os.environ.get("SHARES_DEPTH", 8)), width=16)(
            BN(), classes=10, mean=(0.5,) * 3, std=(0.25,) * 3
        ).eval()


def images(rows, path):
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (rows, 3, 32, 32), generator=rng, dtype=torch.uint8)
    with torch.no_grad():
        y = torch.cat([network()(part.float() / 255).argmax(1) for part in x.split(100)])
    np.savez(path, x=x.numpy(), y=y.numpy(), names=np.array([str(k) for k in range(10)]))


def spent():
    """Processor seconds of this process, and of its children that ended."""
    return [sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def timed(data, devices):
    with tempfile.TemporaryDirectory() as folder:
        settings = Evaluate(
            model="shares:network",
            data=ArrayFile(path=str(data)),
            threat=Linf(eps=0.25 / 255),
            attacks=(FGSM(), PGD()),
            strongest=(),
            devices=devices,
            device="cpu",
            threads=1,
        )
        start, before = time.monotonic(), spent()
        result, _ = run_evaluation(settings, Path(folder))
        own, children = (now - then for now, then in zip(spent(), before, strict=True))
        seconds = time.monotonic() - start
    rows = {"robust": result.evaluation.robust_accuracy.value, "forwards": result.evaluation.forwards}
    return {"devices": devices, "seconds": seconds, "processor": max(own, children), **rows}


def apart(data):
    """The longer seconds of two evaluations in one process each, side by side."""
    with launched(2) as workers:
        for each in [workers.submit(network) for _ in range(2)]:  # both have started
            each.result()
        runs = [each.result() for each in [workers.submit(timed, data, 1) for _ in range(2)]]
    return max(run["seconds"] for run in runs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--depth", type=int, default=8)
    given = parser.parse_args()
    os.environ["SHARES_DEPTH"] = str(given.depth)  # for the processes that share the rows
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "images.npz"
        images(given.rows, data)
        runs, bound = [], []
        for _ in range(given.repeats):
            runs += [timed(data, devices) for devices in (1, 2)]
            bound.append(apart(data))
    assert len({(run["robust"], run["forwards"]) for run in runs}) == 1, runs
    ratios = {}
    for what in ("seconds", "processor"):
        one, two = (median(run[what] for run in runs if run["devices"] == devices) for devices in (1, 2))
        ratios[what] = one / two
    one = median(run["seconds"] for run in runs if run["devices"] == 1)
    ratios["bound"] = 2 * one / median(bound)
    record = {
        **provenance(),
        "rows": given.rows,
        "depth": given.depth,
        "load": os.getloadavg(),
        "runs": runs,
        "apart": bound,
        "ratios": ratios,
        "seed": 0,
    }
    write(given.out, to_json(record))
    print(ratios)


if __name__ == "__main__":
    main()
