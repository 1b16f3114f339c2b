"""Patches and frames: our attacks beside public code, on the same network and rows.

    python benchmarks/patches.py NETWORK WEIGHTS DATA ROWS OUT.json [--sides 3 5 7] [--widths 1 2] [--phattacks PATH] [--sparse-rs PATH]
        [--adv-framing PATH] [--who patchattack ...] [--queries 5000] [--train 5000] [--seed 0] [--threads 1]

The public code is imported from local clones, whose commits the record names; none of it is here:

    phattacks     github.com/tongwu2020/phattacks    ROA as its cifar/attack.py evaluates: 50 places by gradient, 150 steps of 0.05 from noise, 10 times
    sparse-rs     github.com/fra31/sparse-rs         Patch-RS (first share 0.4) and Frame-RS (0.5), the settings of its README
    adv_framing   github.com/zajaczajac/adv_framing  one frame for all rows, trained by its README for ImageNet: 5 epochs, batches of 32, Adam at 0.1

What needs a clone runs if its path is given. NETWORK is a function of networks.py, DATA a data set's name (its files where $NORMWISE_DATA says).
The first ROWS test rows that are classified correctly are attacked. Every image is checked to lie in the threat model and judged on the
network by the process that calls. `standing` are the rows that are still right. Runs that the record holds already are not made again.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
import types
from pathlib import Path

import torch
from peers import Counted
from torch import nn

import networks
from normwise.attacks import PatchAttack, SparseRS, Universal
from normwise.data import find
from normwise.records import provenance, to_json, write
from normwise.registry import plain
from normwise.seeding import drawing, generator
from normwise.threats import Frame, Patch
from normwise.types import Search

REPEATS = 10  # of phattacks
EPOCHS = 5  # of adv_framing
CLONES = {"phattacks": "cifar", "sparse-rs": "", "adv-framing": ""}  # where in a clone its modules are


def module(given, clone, name):
    """A module of a clone."""
    sys.path.insert(0, str(getattr(given, clone.replace("-", "_")) / CLONES[clone]))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


class Forgiving(types.ModuleType):
    """torch, whose `zeros` need no gradient: phattacks writes into some that do, which torch refuses by now. It uses no gradient of theirs."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def zeros(self, *shape, requires_grad=False):
        return torch.zeros(*shape)


def phattacks(model, x, y, threat, given):
    """Its ROA; a row that fell once has fallen."""
    sys.modules["imshow"] = types.ModuleType("imshow")  # imported for its pictures alone
    code = module(given, "phattacks", "ROA")
    code.torch = Forgiving("torch")
    roa, best, left = code.ROA(model, x.shape[-1]), x.clone(), torch.arange(len(y))
    side = threat.size
    for _ in range(REPEATS):
        if len(left):
            found = roa.gradient_based_search(x[left], y[left], 0.05, 150, side, side, 1, 1, 50, True)
            best[left] = found
            with torch.no_grad():
                left = left[model(found).argmax(1) == y[left]]
    return best


def sparse_rs(model, x, y, threat, given):
    """Its Patch-RS or Frame-RS."""
    code = module(given, "sparse-rs", "rs_attacks")
    norm, eps, first = ("patches", threat.size**2, 0.4) if threat.name == "patch" else ("frames", threat.width, 0.5)
    attack = code.RSAttack(
        model, norm=norm, eps=eps, p_init=first, n_queries=given.queries, seed=given.seed, device="cpu", verbose=False
    )
    return attack.perturb(x, y)[1]


def adv_framing(model, x, y, threat, given):
    """Its frame around what the frame leaves of each image, trained on training rows."""
    w = threat.width
    made = module(given, "adv-framing", "framing").Framing(w, x.shape[-1] - 2 * w, lambda frame: frame, 1.0)
    optimizer = torch.optim.Adam(made.parameters(), 0.1)
    batches = trained_on(given, 32)
    for epoch in range(EPOCHS):
        for batch in batches:
            optimizer.zero_grad()
            framed = made(batch.x[..., w:-w, w:-w])[0]
            (-nn.functional.cross_entropy(model(framed), batch.y)).backward()
            optimizer.step()
        if epoch % 2:
            optimizer.param_groups[0]["lr"] *= 0.1
    with torch.no_grad():
        return made(x[..., w:-w, w:-w])[0]


def trained_on(given, size):
    """The training rows that both sides' frames see, in batches."""
    rows = find(given.data).train(batch_size=size, generator=generator(0, "rows"))
    return [batch for batch, _ in zip(rows, range(given.train // size), strict=False)]


def universal(model, x, y, threat, given):
    """Our frame for all rows, by as many updates on the same batches."""
    batches, drawn = trained_on(given, 32), generator(given.seed, "universal")
    attack = Universal(updates=EPOCHS * len(batches)).fit(model, batches, threat, generator=drawn)
    return attack(model, x, y, threat, generator=drawn).x_adv


def ours(attack):
    def run(model, x, y, threat, given):
        drawn, search = generator(given.seed, "patches"), Search(independent=True)
        return attack(given)(model, x, y, threat, generator=drawn, search=search).x_adv

    return run


SIDES = {  # by name: what runs, on which threat models, and the clone it needs
    "phattacks": (phattacks, ("patch",), "phattacks"),
    "patchattack": (ours(lambda given: PatchAttack()), ("patch", "frame"), ""),
    "sparse-rs": (sparse_rs, ("patch", "frame"), "sparse-rs"),
    "normwise sparse_rs": (ours(lambda given: SparseRS(steps=given.queries - 1)), ("patch", "frame"), ""),
    "adv_framing": (adv_framing, ("frame",), "adv-framing"),
    "normwise universal": (universal, ("frame",), ""),
}


def measured(given, model, batch, threat, name):
    """One side in one threat model: the rows that still stand, and what that cost."""
    watched = Counted(model).eval()
    began, processor = time.perf_counter(), time.process_time()
    with drawing(given.seed):
        x_adv = SIDES[name][0](watched, batch.x, batch.y, threat, given).detach()
    spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - processor}
    outside = int((~threat.around(batch.x, generator=generator(0)).contains(x_adv)).sum())
    with torch.no_grad():
        standing = batch.ids[model(x_adv).argmax(1) == batch.y].tolist()
    counts = {"forwards": watched.forwards, "backwards": watched.gradients}
    return {
        "who": name,
        "threat": plain(threat),
        "left": len(standing),
        "outside": outside,
        **counts,
        **spent,
        "standing": standing,
    }


def commits(given):
    """The commit of each clone."""
    found = {}
    for clone in CLONES:
        if path := getattr(given, clone.replace("-", "_")):
            command = ["git", "-C", str(path), "rev-parse", "HEAD"]
            found[clone] = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("network", "weights", "data"):
        parser.add_argument(name)
    parser.add_argument("rows", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sides", type=int, nargs="*", default=[])
    parser.add_argument("--widths", type=int, nargs="*", default=[])
    parser.add_argument("--who", nargs="*", choices=SIDES, default=list(SIDES))
    for clone in CLONES:
        parser.add_argument(f"--{clone}", type=Path)
    for name, value in (("queries", 5000), ("train", 5000), ("seed", 0), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = getattr(networks, given.network)(Path(given.weights)).requires_grad_(False)
    batch = find(given.data).test(batch_size=given.rows)[0]
    with torch.no_grad():
        right = model(batch.x).argmax(1) == batch.y
    batch = batch._replace(x=batch.x[right], y=batch.y[right], ids=batch.ids[right])
    settings = {key: getattr(given, key) for key in ("network", "data", "rows", "queries", "train", "seed", "threads")}
    record = {**provenance(), **settings, "clones": commits(given), "right": len(batch.y), "runs": []}
    if given.out.exists():
        record["runs"] = json.loads(given.out.read_text())["runs"]
    held = [(run["who"], run["threat"]) for run in record["runs"]]
    for threat in [*(Patch(size=side) for side in given.sides), *(Frame(width=width) for width in given.widths)]:
        for name in given.who:
            _, where, clone = SIDES[name]
            here = not clone or getattr(given, clone.replace("-", "_"))
            if here and threat.name in where and (name, plain(threat)) not in held:
                run = {"commit": record["commit"], **measured(given, model, batch, threat, name)}
                record["runs"].append(run)
                print({key: value for key, value in run.items() if key != "standing"}, flush=True)
                write(given.out, to_json(record))


if __name__ == "__main__":
    main()
