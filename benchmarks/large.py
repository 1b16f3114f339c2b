"""A network of ResNet-50's size on images of 224 pixels: do `evaluate` and `audit` say first how long, keep to a budget, and to memory?

    PYTHONPATH=benchmarks python benchmarks/large.py OUT.json [--rows 16] [--budget 10] [--audit 10] [--pixels 224] [--width 64]

Random weights, whose running statistics are those of the images, and a last layer that is fitted to five kinds of images. Labels are the
answers. Evaluations have a ball so small that few images fall; audits one in which all do, so that their searches end. One thread. Memory is
the peak of the resident set, and `--data.cache` keeps the images in a file: so memory should not hang on their number. With `--width 4 --pixels 64`
it takes a minute or two.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from normwise import recalibrate
from normwise.records import commit, provenance, to_json, write

CLASSES = 5
USUAL = "--batch_size 4 --threads 1 --device cpu"


class Bottleneck(nn.Module):
    """Three convolutions and a way past them (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        sizes = ((inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1))
        layers = [
            [nn.Conv2d(a, b, side, step, side // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()] for a, b, side, step in sizes
        ]
        self.branch = nn.Sequential(*[layer for three in layers for layer in three][:-1])
        same = stride == 1 and inputs == 4 * width
        self.past = nn.Identity() if same else nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)

    def forward(self, x):
        return F.relu(self.branch(x) + self.past(x))


def network():
    """ResNet-50, but for the norms of the ways past; LARGE_WIDTH channels in the stem."""
    width = inputs = int(os.environ.get("LARGE_WIDTH", 64))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for stage, depth in enumerate((3, 4, 6, 3)):
            for block in range(depth):
                parts.append(Bottleneck(inputs, width * 2**stage, 2 if stage and not block else 1))
                inputs = 4 * width * 2**stage
        return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)).eval()


def prepared(place, rows, pixels):
    """Write weights, and for each number of rows a folder of images by class."""
    rng = torch.Generator().manual_seed(0)
    kinds, noise = torch.rand(CLASSES, 3, 7, 7, generator=rng), torch.rand(max(rows), 3, 7, 7, generator=rng)
    goals = torch.arange(max(rows)) % CLASSES
    x = (F.interpolate(0.8 * kinds[goals] + 0.2 * noise, pixels, mode="bilinear") * 255).byte()
    with torch.no_grad():
        model = recalibrate(network(), [x[:8].float() / 255]).eval()
        seen = torch.cat([model[:-1](part.float() / 255) for part in x.split(4)])
        mean = seen.mean(0)
        model[-1].weight.copy_((torch.linalg.pinv(seen - mean) @ F.one_hot(goals, CLASSES).float()).T)
        model[-1].bias.copy_(-model[-1].weight @ mean)
        y = model[-1](seen).argmax(1).tolist()
    torch.save(model.state_dict(), place / "weights.pt")
    for count in rows:
        root = place / f"images{count}"
        train = [(f"train/c{label}/0.png", x[label]) for label in range(CLASSES)]
        for name, image in [*train, *((f"test/c{y[row]}/{row}.png", x[row]) for row in range(count))]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / name)
    return sum(p.numel() for p in model.parameters())


def ran(place, verb, rows, out, words, budget):
    """Run a verb; returns what it said of the time, how long it took, and its peak of memory."""
    command = f"{verb} large:network --weights weights.pt --data images{rows} --data.cache cache{rows} {USUAL} {words}"
    given = [
        sys.executable,
        "-m",
        "normwise",
        *shlex.split(command),
        "--out",
        out,
        *(["--budget", f"{budget:g}"] if budget else []),
    ]
    began, said, first = time.monotonic(), list[str](), list[float]()
    process = subprocess.Popen(given, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def hear():
        for line in process.stderr:
            first.append(time.monotonic() - began)
            said.append(line.strip())

    (hearing := threading.Thread(target=hear)).start()
    process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    hearing.join()
    times = [k for k, line in enumerate(said) if line.startswith("time:")]
    found = {
        "estimate": said[times[0]] if times else "",
        "estimate_after_seconds": first[times[0]] if times else None,
        "budget_minutes": budget or None,
        "minutes": (time.monotonic() - began) / 60,
        "status": process.returncode,
        "end": said[-1] if process.returncode else "",
        "peak_mib": usage.ru_maxrss / 1024,
    }
    record = Path(place) / out / ("audit.json" if verb == "audit" else "result.json")
    if record.exists() and verb == "audit":
        held = json.loads(record.read_text())
        found |= {key: held[key] for key in ("verdict", "n", "upper_bound")}
        found["could_not_run"] = [one["name"] for one in held["checks"] if one["status"] == "could not run"]
    elif record.exists():
        held = json.loads(record.read_text())["evaluation"]
        found |= {key: held[key] for key in ("n", "clean_accuracy", "robust_accuracy", "forwards", "backwards")}
    print(verb, rows, json.dumps(found), flush=True)
    return found


def main():
    """Run all, and write the record after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--budget", type=float, default=10)
    parser.add_argument("--audit", type=float, default=10, help="minutes of each audit")
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--width", type=int, default=64)
    asked = parser.parse_args()
    commit()
    torch.set_num_threads(1)
    os.environ |= {"LARGE_WIDTH": str(asked.width), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    few, rows, many = asked.rows // 2, asked.rows, 2 * asked.rows
    few_fall, all_fall = "--threat.eps 0.00002 --strongest []", f"--threat.eps {1 / 255} --at_once 4"
    quick, whole = f"{few_fall} --attacks fgsm", f"{few_fall} --attacks fgsm,pgd"
    runs = {
        "evaluate, a fifth of the budget": ("evaluate", rows, "one", whole, asked.budget / 5),
        "evaluate, it goes on": ("evaluate", rows, "one", whole, asked.budget),
        f"evaluate, {few} images, fgsm": ("evaluate", few, "few", quick, 0),
        f"evaluate, {many} images, fgsm": ("evaluate", many, "many", quick, 0),
        f"audit, {rows} images": ("audit", rows, "audit", f"{all_fall} --rows {rows}", asked.audit),
        f"audit, {many} images": ("audit", many, "audit2", f"{all_fall} --rows {many}", asked.audit),
    }
    with tempfile.TemporaryDirectory() as place:
        parameters = prepared(Path(place), (few, rows, many), asked.pixels)
        about = {"parameters": parameters, "pixels": asked.pixels, "seed": 0}
        found = {}
        for name, run in runs.items():
            found[name] = ran(place, *run)
            write(asked.out, to_json({**provenance(), **about, "runs": found}))


if __name__ == "__main__":
    main()
