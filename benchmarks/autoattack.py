"""AutoAttack: ours beside the public reference, on the same network, images and threads, in one process.

    python benchmarks/autoattack.py NETWORK WEIGHTS DATA EPS ROWS OUT.json [PATH/TO/auto-attack] [SEEDS]

NETWORK is a function of networks.py, DATA a data set's name (its files where $NORMWISE_DATA says), EPS a number or a fraction
such as 8/255. The reference is imported from a local clone; without one only ours is measured.
"""

import sys
import time
from fractions import Fraction
from pathlib import Path

import networks
import torch

from normwise.attacks import AutoAttack
from normwise.data import find
from normwise.record import provenance, to_json, write
from normwise.threats import Linf
from normwise.types import Batch
from normwise.verdict import evaluate


def ours(model, x, y, eps, seed):
    started = time.perf_counter()
    batch = Batch(x, y, torch.arange(len(y)))
    found = evaluate(model, [batch], Linf(eps=eps), (AutoAttack(),), seed=seed).evaluation
    return {"robust": found.robust_accuracy.value, "seconds": time.perf_counter() - started, "backwards": found.backwards}


def theirs(model, x, y, eps, seed):
    from autoattack import AutoAttack as Reference

    started = time.perf_counter()
    attack = Reference(model, norm="Linf", eps=eps, version="standard", device="cpu", seed=seed, verbose=False)
    x_adv = attack.run_standard_evaluation(x, y, bs=len(y))
    with torch.no_grad():
        robust = (model(x_adv).argmax(1) == y).double().mean().item()
    return {"robust": robust, "seconds": time.perf_counter() - started}


def main(network, weights, data, eps, rows, out, reference="", seeds="1"):
    model, eps = getattr(networks, network)(Path(weights)), float(Fraction(eps))
    batch = find(data).test(batch_size=int(rows))[0]
    found = []
    if reference:
        sys.path.insert(0, reference)
    for seed in range(int(seeds)):
        for name, run in (("normwise", ours), ("reference", theirs)):
            if name == "normwise" or reference:
                found.append({"who": name, "seed": seed, **run(model, batch.x, batch.y, eps, seed)})
                print(found[-1], flush=True)
    settings = {"network": network, "data": data, "eps": eps, "rows": int(rows)}
    write(Path(out), to_json({**provenance(), **settings, "runs": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
