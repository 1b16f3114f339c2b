"""AutoAttack: ours beside the public reference, on the same network, images and threads.

    python benchmarks/autoattack.py NETWORK WEIGHTS DATA EPS ROWS OUT.json [--reference PATH/TO/auto-attack] [--seeds 1]
        [--threads 2] [--threat linf] [--version standard]

Every run is a process of its own, the two sides in turns, so that `process_seconds` holds everything: imports, loading, the
coupling probe, judging. `seconds` begins when network and images are there. NETWORK is a function of networks.py, DATA a data
set's name (its files where $NORMWISE_DATA says), EPS a number or a fraction such as 8/255. The reference is imported from a
local clone; without one only ours is measured. The images of both sides are judged alike.
"""

import argparse
import json
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path


def ours(model, batch, given):
    from normwise.attacks import AutoAttack
    from normwise.threats import THREATS
    from normwise.verdict import evaluate

    attack, threat = AutoAttack(version=given.version), THREATS[given.threat](eps=given.eps)
    found = evaluate(model, [batch], threat, (attack,), seed=given.seed)
    return found.x_adv, {"broken_by": found.evaluation.broken_by, "backwards": found.evaluation.backwards}


def theirs(model, batch, given):
    from autoattack import AutoAttack as Reference

    norm = given.threat.capitalize()
    attack = Reference(model, norm=norm, eps=given.eps, version=given.version, device="cpu", seed=given.seed, verbose=False)
    return attack.run_standard_evaluation(batch.x, batch.y, bs=len(batch.y)), {}


def one(given):
    """One side, one seed: what a process of its own does."""
    import networks
    import torch

    from normwise.coupling import measure_coupling
    from normwise.data import find
    from normwise.judge import DRAWS, Judge

    torch.set_num_threads(given.threads)
    sys.path.insert(0, given.reference)
    model = getattr(networks, given.network)(Path(given.weights))
    batch = find(given.data).test(batch_size=given.rows)[0]
    started = time.perf_counter()
    x_adv, found = {"normwise": ours, "reference": theirs}[given.who](model, batch, given)
    found["seconds"] = time.perf_counter() - started
    judge = Judge(model, given.seed)
    judge.draws = DRAWS if measure_coupling(model, [batch.x[:64]], seed=given.seed).random else 1
    found["robust"] = (judge.answers(x_adv, batch.y)[0] == batch.y).double().mean().item()
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("network", "weights", "data"):
        parser.add_argument(name)
    parser.add_argument("eps", type=lambda text: float(Fraction(text)))
    parser.add_argument("rows", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reference", default="")
    parser.add_argument("--threat", choices=("linf", "l2", "l1"), default="linf")
    parser.add_argument("--version", default="standard")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--who", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.who:
        one(given)
        return
    runs = []
    for seed in range(given.seeds):
        for who in ("normwise", "reference") if given.reference else ("normwise",):
            started = time.perf_counter()
            words = [sys.executable, *sys.argv, "--seed", str(seed), "--who", who]
            said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            whole = time.perf_counter() - started
            runs.append({"who": who, "seed": seed, "process_seconds": whole, **json.loads(said.splitlines()[-1])})
            print(runs[-1], flush=True)

    from normwise.record import provenance, to_json, write

    settings = {key: getattr(given, key) for key in ("network", "data", "eps", "rows", "threads", "threat", "version")}
    write(given.out, to_json({**provenance(), **settings, "runs": runs}))


if __name__ == "__main__":
    main()
