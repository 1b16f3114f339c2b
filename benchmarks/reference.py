"""AutoAttack: ours beside the public reference, on the same network, images and threads.

    python benchmarks/reference.py NETWORK WEIGHTS DATA EPS ROWS OUT.json [--reference PATH/TO/auto-attack] [--seeds 1]
        [--threads 2] [--threat linf] [--version standard] [--precision float32]

Every run is a process of its own, the two sides in turns, so that `process_seconds` holds everything: imports, loading, the
coupling probe, judging, saving the images. `seconds` begins when network and images are there. NETWORK is a function of networks.py, DATA a data
set's name (its files where $NORMWISE_DATA says), EPS a number or a fraction such as 8/255. The reference is imported from a
local clone, whose commit the record names; without one only ours is measured. The images of both sides are judged
alike by the process that calls, on neither clock.
`parts` says of each part of the attack how many rows it was given, its seconds (those of its processor too), and how many images went forward and back; what
of `seconds` is in no part is probing, judging and passes between the parts.
"""

import argparse
import contextlib
import functools
import json
import re
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from normwise.evaluation.plan import AttackPlan


class Parts:
    """What each part of an attack was given and cost, by its name; `counts` tells images forward and back so far."""

    def __init__(self):
        self.found = {}

    @contextlib.contextmanager
    def watch(self, name, rows, counts):
        clocks = time.perf_counter, time.process_time  # on a shared machine the second says more
        started, before = [clock() for clock in clocks], counts()
        yield
        spent = [clock() - then for clock, then in zip(clocks, started, strict=True)]
        spent += (now - then for now, then in zip(counts(), before, strict=True))
        part = self.found.setdefault(re.sub(r"-e?\d+$", "", name), [0, 0.0, 0.0, 0, 0])  # square-5000, apgd-ce-e20
        part[:] = (a + b for a, b in zip(part, (rows, *spent), strict=True))

    def totals(self):
        keys = "part", "rows", "seconds", "cpu_seconds", "forwards", "backwards"
        return [dict(zip(keys, (name, *part), strict=True)) for name, part in self.found.items()]


def watched(kind, parts):
    """Have a kind of attack say what each of its searches costs, as part of whatever."""
    search = kind.search

    @functools.wraps(search)
    def timed(self, oracle, region, x, y, independent):
        with parts.watch(self.label, len(x), lambda: (oracle.forwards, oracle.backwards)):
            return search(self, oracle, region, x, y, independent)

    kind.search = timed


def ours(model, batch, given):
    from normwise.attacks import APGD, FAB, AutoAttack, Square
    from normwise.evaluation.acceleration import Speed
    from normwise.evaluation.evaluator import evaluate
    from normwise.threats import THREATS

    parts = Parts()
    for kind in (APGD, FAB, Square):
        watched(kind, parts)
    attack, threat = AutoAttack(version=given.version), THREATS[given.threat](eps=given.eps)
    speed = Speed(precision=given.precision)
    e = (found := evaluate(model, [batch], AttackPlan(threat, (attack,), seed=given.seed, speed=speed))).evaluation
    return found.x_adv, {
        "broken_by": e.broken_by,
        "forwards": e.forwards,
        "backwards": e.backwards,
        "parts": parts.totals(),
    }


def theirs(model, batch, given):
    from autoattack import AutoAttack as Reference
    from peers import Counted

    norm, model, parts = given.threat.capitalize(), Counted(model).eval(), Parts()
    attack = Reference(model, norm=norm, eps=given.eps, version=given.version, device="cpu", seed=given.seed, verbose=False)
    names = {
        attack.apgd: lambda: f"apgd-{attack.apgd.loss}",
        attack.apgd_targeted: lambda: "apgd-t",
        attack.fab: lambda: "fab-t" if attack.fab.targeted else "fab",
        attack.square: lambda: "square",
    }

    def counts():
        return model.forwards, model.gradients

    def timed(perturb, name, x, y):
        with parts.watch(name(), len(x), counts):
            return perturb(x, y)

    for part, name in names.items():
        part.perturb = functools.partial(timed, part.perturb, name)
    x_adv = attack.run_standard_evaluation(batch.x, batch.y, bs=len(batch.y))
    return x_adv, {"forwards": model.forwards, "backwards": model.gradients, "parts": parts.totals()}


def prepared(given):
    """The network and its images."""
    import torch

    import networks
    from normwise.data import find

    torch.set_num_threads(given.threads)
    model = getattr(networks, given.network)(Path(given.weights))
    return model, find(given.data).test(batch_size=given.rows)[0]


def one(given):
    """One side, one seed: what a process of its own does."""
    import torch

    sys.path.insert(0, given.reference)
    model, batch = prepared(given)
    started = time.perf_counter()
    x_adv, found = {"normwise": ours, "reference": theirs}[given.who](model, batch, given)
    found["seconds"] = time.perf_counter() - started
    torch.save(x_adv, given.images)
    print(json.dumps(found))


def robust(given, images, seed):
    """The share of rows that are right on these images; of a random network, by the mean of many answers."""
    import torch

    from normwise.evaluation.coupling import measure_coupling, probed
    from normwise.evaluation.predictor import Predictor

    model, batch = prepared(given)
    judge = Predictor(model, seed)
    judge.adjust(measure_coupling(model, probed([batch]), seed=seed))
    return (judge.answers(torch.load(images), batch.y)[0] == batch.y).double().mean().item()


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
    parser.add_argument("--precision", default="float32", help="of our search; each success is confirmed in float32")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--note", default="", help="what else the record should say, e.g. that the machine was shared")
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--who", help=argparse.SUPPRESS)
    parser.add_argument("--images", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.who:
        one(given)
        return
    import ratios

    from normwise.records import provenance, to_json, write

    settings = {
        key: getattr(given, key)
        for key in ("network", "data", "eps", "rows", "threads", "threat", "version", "precision", "note")
    }
    if given.reference:
        commit = ["git", "-C", given.reference, "rev-parse", "HEAD"]
        settings["reference"] = subprocess.run(commit, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    runs = []
    for seed in range(given.seeds):
        for who in ("normwise", "reference") if given.reference else ("normwise",):
            with tempfile.NamedTemporaryFile(suffix=".pt") as images:
                words = [sys.executable, *sys.argv, "--seed", str(seed), "--who", who, "--images", images.name]
                started = time.perf_counter()
                said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
                whole = time.perf_counter() - started
                found = {**json.loads(said.splitlines()[-1]), "robust": robust(given, images.name, seed)}
            runs.append({"who": who, "seed": seed, "process_seconds": whole, **found})
            print(runs[-1], flush=True)
        lines = ratios.said(runs, ("process_seconds", "seconds"))
        write(given.out, to_json({**provenance(), **settings, "ratios": lines, "runs": runs}))  # so far
    print("\n".join(lines))


if __name__ == "__main__":
    main()
