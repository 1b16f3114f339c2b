"""Did a change move a figure? Small runs on digits, before and after, on one machine.

    python tests/golden.py BEFORE                   in the old checkout (or --source OLD/src from any)
    python tests/golden.py AFTER --against BEFORE   in the new one: says which files differ and where, and exits 1

OUT is a new folder; a call takes one thread and about two minutes. `OUT/golden.json` keeps what is compared: the values of weights and
images, and of records and tables all but times and provenance. Of sentences only the numbers count: words may be rewritten. Each
config.yaml is read back by --config, and must be the same settings.

Figures follow the processor: digests of two machines differ, and none is committed.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
ALONE = ["--threads", "1", "--device", "cpu"]
SMALL = "digits --data.test_limit 100 --model.width 4 --schedule.optimizer adamw --schedule.lr 0.02 --threat.eps 0.1"
RUNS = {  # where it is written, and the words; the first is the verb
    "train": f"train {SMALL} --norm rnt --recipe adversarial --recipe.steps 2 --schedule.epochs 8",
    "coupled": f"train {SMALL} --norm bnwot --schedule.epochs 4",
    "evaluate": "evaluate train --attacks autoattack --strongest []",
    "attack": "attack train --threat l2 --threat.eps 0.5",
    "diagnose": "diagnose train --rows 50",
    "audit": "audit train --rows 40 --victims 4 --twin none",
    "shifts": "shifts train --rows 50 --batch_size 25 --severities 1 --kinds gaussian_noise,fog",
}
KEPT = "golden.json"
SENTENCES = {"why", "measured", "reasons", "sentences", "about", "note", "over", "attacker", "missing"}
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def figures(value, key=""):
    """A record without what differs from run to run; of sentences the numbers in them."""
    if isinstance(value, dict):
        return {name: figures(one, name) for name, one in value.items() if name != "provenance" and "seconds" not in name}
    if isinstance(value, list):
        return [figures(one, key) for one in value]
    return NUMBER.findall(value) if isinstance(value, str) and key in SENTENCES else value


def kept(path):
    """What a file holds, for comparison: plain data, or None where it is no record."""
    import numpy as np
    from safetensors.numpy import load_file

    def digest(arrays):
        return {name: hashlib.sha256(np.ascontiguousarray(one)).hexdigest() for name, one in sorted(arrays.items())}

    if path.suffix == ".json":
        return figures(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [figures(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        return [figures(row) for row in csv.DictReader(path.read_text().splitlines())]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return digest(arrays)
    if path.suffix == ".safetensors":
        return digest(load_file(path))
    return path.read_text() if path.name == "config.yaml" else None


def differences(before, after, where=""):
    """The places at which two pieces of plain data differ, each in a line."""
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(f"{where}.{key}", before.get(key), after.get(key)) for key in {**before, **after}]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [(f"{where}[{i}]", *both) for i, both in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [f"{where}: {str(before)[:60]} -> {str(after)[:60]}"]
    return [line for place, one, other in pairs for line in differences(one, other, place)]


def make(out):
    """Make the runs in a new folder, with paths relative to it; returns what they hold, file by file."""
    import yaml

    from normwise.__main__ import main

    out.mkdir(parents=True)
    os.chdir(out)
    for place, words in RUNS.items():
        print(f"{place} ...", flush=True)
        with redirect_stdout(io.StringIO()):
            status = main([*words.split(), *ALONE, "--out", place])
        if status:
            sys.exit(f"normwise {words} ended with status {status}")
        with redirect_stdout(io.StringIO()) as again:
            main([words.split()[0], "--config", f"{place}/config.yaml", "--print_config"])
        if yaml.safe_load(again.getvalue()) != yaml.safe_load(Path(place, "config.yaml").read_text()):
            sys.exit(f"{out}/{place}/config.yaml: --config does not read back what the run wrote")
    found = {str(path): kept(path) for path in sorted(Path().rglob("*")) if path.is_file()}
    return {name: one for name, one in found.items() if one is not None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet, or holds such runs")
    parser.add_argument("--against", type=Path, metavar="BEFORE", help="the OUT of an earlier call, to compare with")
    parser.add_argument(
        "--source", type=Path, metavar="SRC", default=SOURCE, help="the src folder to run (default: this checkout's)"
    )
    asked = parser.parse_args()
    out = asked.out.resolve()
    before = json.loads((asked.against / KEPT).read_text()) if asked.against else None
    if not (out / KEPT).exists():
        sys.path.insert(0, str(asked.source.resolve()))
        made = make(out)
        (out / KEPT).write_text(json.dumps(made))
    after = json.loads((out / KEPT).read_text())
    for name, one in after.items():
        print(f"{hashlib.sha256(json.dumps(one, sort_keys=True).encode()).hexdigest()[:12]}  {name}")
    if before is not None:
        lines = differences(before, after)
        print("\n".join(lines[:50]) or "no figure moved")
        sys.exit(bool(lines))


if __name__ == "__main__":
    main()
