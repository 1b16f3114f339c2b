"""normwise beside its peers: the same network, images, steps and threads, in one process.

    python benchmarks/peers.py pgd NETWORK WEIGHTS DATA OUT.json [--rows 128] [--steps 20] [--repeats 5] [--threads 2]
    python benchmarks/peers.py apgd NETWORK WEIGHTS DATA OUT.json --eps 2/255 --reference PATH [--rows 200]
    python benchmarks/peers.py strength NETWORK WEIGHTS DATA OUT.json --eps 2/255 [--reference PATH] [--rows 200] [--seeds 3]
    python benchmarks/peers.py cost NETWORK WEIGHTS DATA OUT.json --eps 2/255
    python benchmarks/peers.py switches NETWORK WEIGHTS DATA OUT.json --eps 1/255 [--rows 500] [--steps 100] [--seeds 3] [--ways off ...]

NETWORK is a function of networks.py (WEIGHTS may be `none` where it takes none), DATA a data set's name, its files where
$NORMWISE_DATA says. A peer that is not installed is named and left out. See README.md for what to install.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import others
import ratios
import torch
from torch import Tensor, nn

import networks
from normwise.attacks import APGD, PGD, AutoAttack, Square
from normwise.data import find
from normwise.evaluation.acceleration import EAGER, FAST, Speed, faster
from normwise.evaluation.evaluator import evaluate
from normwise.evaluation.plan import AttackPlan
from normwise.records import provenance, to_json, write
from normwise.seeding import generator
from normwise.threats import Linf
from normwise.types import Batch


class Counted(nn.Module):
    """Counts the images that go forward, and of these the ones whose gradient is asked for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.gradients = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        if torch.is_grad_enabled() and x.requires_grad:
            x = x.view_as(x)  # a hook on the images themselves would stay for their next pass, and count that twice
            x.register_hook(lambda grad: setattr(self, "gradients", self.gradients + len(grad)))
        logits: Tensor = self.model(x)
        return logits


def ours(speed: Speed) -> Callable[..., Tensor]:
    def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        return PGD(steps=steps, keep="last")(model, x, y, Linf(eps=eps), generator=generator(seed)).x_adv

    return attack


def bound(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """FLOPs of one image forward and back to its pixels (convolutions and linear layers), and the machine's rate in FLOPs/s."""
    macs = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs
        macs += out.numel() * module.weight[0].numel()  # type: ignore[union-attr]

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [m.register_forward_hook(count) for m in layers]
    with torch.no_grad():
        model(x[:1])
    for hook in hooks:
        hook.remove()
    a, rates = torch.rand(2048, 2048), []
    for _ in range(10):
        started = time.perf_counter()
        a @ a
        rates.append(2 * 2048**3 / (time.perf_counter() - started))
    return 4.0 * macs, max(rates)


def pgd(args: argparse.Namespace, model: nn.Module, batch: Batch) -> dict:
    """Gradient evaluations per second of PGD, interleaved, after one call that warms up.

    Labels are the network's own answers and the radius is tiny, so that no row falls and nobody stops early.
    """
    x, eps = batch.x, 1e-6
    with torch.no_grad():
        y = model(x).argmax(1)
    crowd = {name: make(model) for name, make in others.PGD.items() if others.there(name)}
    if not crowd:
        raise SystemExit("no peer is there to be compared with; pip install --no-deps -r benchmarks/requirements.txt")
    variants = {"as it is": EAGER, "folded, channels_last": FAST, "compiled": Speed(compile=True)}
    variants |= {"bfloat16": Speed(precision="bfloat16"), "compiled bfloat16": Speed(compile=True, precision="bfloat16")}
    for name, speed in variants.items():
        copy = (faster(model, speed, x[:8], 0).made or [model])[0]
        crowd[f"normwise, {name}"] = lambda x, y, eps, steps, seed, copy=copy: ours(FAST)(copy, x, y, eps, steps, seed)
    counted = {name: count(make, model, x, y) for name, make in others.PGD.items() if name in crowd}
    runs: dict[str, list[float]] = {name: [] for name in crowd}
    first: dict[str, float] = {}
    for repeat in range(args.repeats + 1):
        for name, attack in crowd.items():
            started = time.perf_counter()
            x_adv = attack(x, y, eps, args.steps, repeat)
            seconds = time.perf_counter() - started
            if not Linf(eps=eps).around(x, generator=generator(0)).contains(x_adv).all():
                print(f"{name} left the ball or the box", flush=True)
            if repeat:
                runs[name].append(len(x) * args.steps * counted.get(name, 1.0) / seconds)
            else:
                first[name] = seconds
    flops, rate = bound(model, x)
    best = max(statistics.median(found) for name, found in runs.items() if not name.startswith("normwise"))
    rows = [
        {
            "who": name,
            "gradients_per_second": statistics.median(found),
            "spread": [min(found), max(found)],
            "to_fastest_peer": statistics.median(found) / best,
            "share_of_bound": statistics.median(found) * flops / rate,
            "first_call_seconds": first[name],
            "gradients_per_step": counted.get(name, 1.0),
            "runs": found,
        }
        for name, found in runs.items()
    ]
    return {"flops_per_gradient": flops, "matmul_flops_per_second": rate, "missing": others.missing(), "pgd": rows}


def count(make: Callable, model: nn.Module, x: Tensor, y: Tensor) -> float:
    """How many gradients a peer really takes per image and step."""
    watched = Counted(model).eval()
    make(watched)(x[:8], y[:8], 1e-6, 10, 0)
    return watched.gradients / 80


def apgd(args: argparse.Namespace, model: nn.Module, batch: Batch) -> dict:
    """APGD-CE beside the reference: seconds and robust accuracy, each from the clean images on, judging included."""
    runs = []
    for seed in range(args.seeds):
        for name, speed in (("normwise", FAST), ("normwise, bfloat16", Speed(precision="bfloat16"))):
            started = time.perf_counter()
            e = evaluate(
                model, [batch], AttackPlan(Linf(eps=args.eps), (APGD(steps=args.steps),), seed=seed, speed=speed)
            ).evaluation
            runs.append(
                {"who": name, "seed": seed, "seconds": time.perf_counter() - started, "robust": e.robust_accuracy.value}
            )
            print(runs[-1], flush=True)
        started = time.perf_counter()
        x_adv = others.reference(model, batch, args.eps, ["apgd-ce"], seed, args.steps)
        seconds = time.perf_counter() - started
        runs.append({"who": "reference", "seed": seed, "seconds": seconds, "robust": accuracy(model, x_adv, batch.y)})
        print(runs[-1], flush=True)
    return {"apgd": runs, "ratios": ratios.said(runs, ("seconds", "robust"))}


def strength(args: argparse.Namespace, model: nn.Module, batch: Batch) -> dict:
    """Robust accuracy of single attacks at equal counts of gradients or queries, nobody's rows judged by itself."""
    runs = []

    def note(attack: str, who: str, seed: int, x_adv: Tensor) -> None:
        runs.append({"attack": attack, "who": who, "seed": seed, "robust": accuracy(model, x_adv, batch.y)})
        print(runs[-1], flush=True)

    for seed in range(args.seeds):
        for attack in (PGD(steps=args.steps), APGD(steps=args.steps), Square(steps=args.queries)):
            verdict = evaluate(model, [batch], AttackPlan(Linf(eps=args.eps), (attack,), seed=seed))
            note(attack.name, "normwise", seed, verdict.x_adv)
        for name, make in others.PGD.items():
            if others.there(name):
                note("pgd", name, seed, make(model)(batch.x, batch.y, args.eps, args.steps, seed))
        if args.reference:
            note("apgd", "reference", seed, others.reference(model, batch, args.eps, ["apgd-ce"], seed, args.steps))
            note(
                "square", "reference", seed, others.reference(model, batch, args.eps, ["square"], seed, queries=args.queries)
            )
    each = dict.fromkeys(run["attack"] for run in runs)
    compared = {name: ratios.said([run for run in runs if run["attack"] == name], ("robust",)) for name in each}
    return {"strength": runs, "ratios": [f"{name}, {line}" for name, lines in compared.items() for line in lines]}


def switches(args: argparse.Namespace, model: nn.Module, batch: Batch) -> dict:
    """Robust accuracy with each switch of Speed alone on, beside all off; every success counted is one of the network itself.

    Searched by AutoAttack, whose parts have the shortcuts that can be switched; these are taken where rows leave alone.
    """
    runs, parts = [], [Batch(*part) for part in zip(*(tensor.split(100) for tensor in batch), strict=True)]
    attack, off = AutoAttack(steps=args.steps, queries=args.queries), replace(EAGER, drop=False, give_up=False)
    ways = {"off": off, **{name: replace(off, **{name: True}) for name in ("fold", "channels_last", "first_layer", "drop")}}
    ways |= {"drop and give_up": replace(off, drop=True, give_up=True), "compile": replace(off, compile=True)}
    ways |= {"bfloat16": replace(off, precision="bfloat16")}
    ways |= {"float16, drop and give_up": replace(off, precision="float16", drop=True, give_up=True)}  # slow on a CPU
    ways |= {"all, in float32": FAST}
    ways = {name: speed for name, speed in ways.items() if name in (args.ways or ways)}
    for seed in range(args.seeds):
        for name, speed in ways.items():
            e = evaluate(model, parts, AttackPlan(Linf(eps=args.eps), (attack,), seed=seed, speed=speed)).evaluation
            runs.append({"who": name, "seed": seed, "seconds": e.seconds, "robust": e.robust_accuracy.value})
            print(runs[-1], flush=True)
    return {"switches": runs}


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def cost(args: argparse.Namespace, model: nn.Module, batch: Batch) -> dict:
    """Seconds over rows and over steps, and peak memory over rows, each in a process of its own; draws a figure."""
    points = []
    for rows, steps in [(rows, 20) for rows in (500, 1000, 2000, 4000)] + [(500, steps) for steps in (10, 20, 40, 80)]:
        words = [sys.executable, __file__, "point", *args.words, "--rows", str(rows), "--steps", str(steps)]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        points.append({"rows": rows, "steps": steps, "seconds": float(said[-2]), "megabytes": float(said[-1])})
        print(points[-1], flush=True)
    draw(points, Path(args.out).with_suffix(".png"))
    return {"points": points}


def point(args: argparse.Namespace) -> None:
    """One measurement of `cost`: attacks that nothing falls to, so that every row pays for every step; images go to disk."""
    import tempfile

    model = getattr(networks, args.network)(*[Path(args.weights)] * (args.weights != "none"))
    batches = find(args.data).test(batch_size=100)[: args.rows // 100]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        evaluate(model, batches, Linf(eps=1e-6), (PGD(steps=args.steps),), folder=Path(folder) / "parts")
        seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def draw(points: list[dict], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    over_rows, over_steps = points[:4], points[4:]
    panels = [("rows", "seconds", over_rows), ("steps", "seconds", over_steps), ("rows", "megabytes", over_rows)]
    for axes, (x, y, shown) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.plot([p[x] for p in shown], [p[y] for p in shown], "o-", color="#0b62a8")
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_ylim(0, 1.1 * max(p[y] for p in shown))
    figure.savefig(path, dpi=110)


VERBS = {"pgd": pgd, "apgd": apgd, "strength": strength, "cost": cost, "switches": switches}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=[*VERBS, "point"])
    for name in ("network", "weights", "data", "out"):
        parser.add_argument(name)
    parser.add_argument("--eps", type=lambda text: float(Fraction(text)), default=8 / 255)
    for name, value in {"rows": 128, "steps": 20, "queries": 1000, "repeats": 5, "threads": 2, "seeds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--reference", default="")
    parser.add_argument("--ways", nargs="*", help="of switches: these alone")
    args = parser.parse_args()
    args.words = [args.network, args.weights, args.data, args.out]
    torch.set_num_threads(args.threads)
    if args.reference:
        sys.path.insert(0, args.reference)
    elif args.verb == "apgd":
        parser.error("apgd is measured beside the reference; give --reference PATH, a clone of fra31/auto-attack")
    if args.verb == "point":
        point(args)
        return
    model = getattr(networks, args.network)(*[Path(args.weights)] * (args.weights != "none"))
    batch = find(args.data).test(batch_size=args.rows)[0]
    found = VERBS[args.verb](args, model, batch)
    settings = {key: value for key, value in vars(args).items() if key not in ("words", "reference", "out")}
    write(Path(args.out), to_json({**provenance(), "settings": settings, "peers": others.versions(), **found}))
    for line in found.get("ratios", []):
        print(line)
    for row in found.get("pgd", []):
        print(
            f"{row['who']:34}{row['gradients_per_second']:9.0f} [{row['spread'][0]:.0f}, {row['spread'][1]:.0f}]/s  "
            f"{row['to_fastest_peer']:5.2f} x the fastest peer  "
            f"{100 * row['share_of_bound']:4.0f}% of the bound  first call {row['first_call_seconds']:.1f} s"
        )


if __name__ == "__main__":
    main()
