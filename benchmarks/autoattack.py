"""AutoAttack-standard: ours beside the public reference, on the same network, images and threads.

    python benchmarks/autoattack.py NETWORK WEIGHTS DATA EPS ROWS OUT.json [PATH/TO/auto-attack] [SEEDS] [THREADS]

Every run is a process of its own, the two sides in turns, so that `process_seconds` holds everything: imports, loading, the
coupling probe, judging. `seconds` begins when network and images are there. NETWORK is a function of networks.py, DATA a data
set's name (its files where $NORMWISE_DATA says), EPS a number or a fraction such as 8/255. The reference is imported from a
local clone; without one only ours is measured.
"""

import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path


def ours(model, x, y, eps, seed):
    import torch

    from normwise.attacks import AutoAttack
    from normwise.threats import Linf
    from normwise.types import Batch
    from normwise.verdict import evaluate

    batch = Batch(x, y, torch.arange(len(y)))
    found = evaluate(model, [batch], Linf(eps=eps), (AutoAttack(),), seed=seed).evaluation
    return {"robust": found.robust_accuracy.value, "broken_by": found.broken_by, "backwards": found.backwards}


def theirs(model, x, y, eps, seed):
    import torch
    from autoattack import AutoAttack as Reference

    attack = Reference(model, norm="Linf", eps=eps, version="standard", device="cpu", seed=seed, verbose=False)
    x_adv = attack.run_standard_evaluation(x, y, bs=len(y))
    with torch.no_grad():
        return {"robust": (model(x_adv).argmax(1) == y).double().mean().item()}


def one(network, weights, data, eps, rows, reference, seed, threads, who):
    """One side, one seed: what a process of its own does."""
    import networks
    import torch

    from normwise.data import find

    torch.set_num_threads(int(threads))
    sys.path.insert(0, reference)
    model = getattr(networks, network)(Path(weights))
    batch = find(data).test(batch_size=int(rows))[0]
    started = time.perf_counter()
    found = {"normwise": ours, "reference": theirs}[who](model, batch.x, batch.y, float(Fraction(eps)), int(seed))
    print(json.dumps({"seconds": time.perf_counter() - started, **found}))


def main(network, weights, data, eps, rows, out, reference="", seeds="1", threads="2"):
    runs = []
    for seed in range(int(seeds)):
        for who in ("normwise", "reference") if reference else ("normwise",):
            started = time.perf_counter()
            words = ["one", network, weights, data, eps, rows, reference, str(seed), threads, who]
            said = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True).stdout
            whole = time.perf_counter() - started
            runs.append({"who": who, "seed": seed, "process_seconds": whole, **json.loads(said.splitlines()[-1])})
            print(runs[-1], flush=True)

    from normwise.record import provenance, to_json, write

    settings = {"network": network, "data": data, "eps": float(Fraction(eps)), "rows": int(rows), "threads": int(threads)}
    write(Path(out), to_json({**provenance(), **settings, "runs": runs}))


if __name__ == "__main__":
    one(*sys.argv[2:]) if sys.argv[1] == "one" else main(*sys.argv[1:])
