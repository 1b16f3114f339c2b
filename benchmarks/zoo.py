"""Does the audit catch broken defences, and leave sound networks alone?

    python benchmarks/zoo.py digits runs/zoo          # the first zoo, on which thresholds were set
    python benchmarks/zoo.py faces runs/zoo3          # the third: networks that behave differently for attackers, and their sound relatives
    python benchmarks/zoo.py cifar10 runs/zoo2 --checkpoints FOLDER   # the second, made afterwards: real images, other networks
    python benchmarks/zoo.py cifar10 runs/zoo2 --checkpoints FOLDER --part 1/2   # every second of its networks; 2/2: the others

The second zoo needs CIFAR-10 (NORMWISE_DATA) and a folder with akamaster_resnet20_cifar10.th and cnn_a_adv_cifar10.pth; its other
networks are cells of `normwise reproduce --preset cpu` (--cells FOLDER), those that are not there being left out, and two
small ones that are trained here.

Each network's row is written to FOLDER/animals as soon as it is there, and a stopped run goes on after the last. zoo.json and zoo.md
hold all rows of the folder, whoever made them: a network's own claim, the audit's upper bound, verdict, and the checks that failed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from animals import FEW, ROWS, faces, first_zoo, second_zoo, trained

from normwise.auditing.auditor import audit
from normwise.auditing.options import AuditOptions
from normwise.data import Cifar10, Digits
from normwise.experiments.papers.cell_store import OldCellStore
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import cpu
from normwise.norms import BN
from normwise.records import provenance, write
from normwise.threats import Linf
from normwise.training.recipes import Standard
from normwise.types import silent


def look(animal, batches, twin, minutes: float) -> dict[str, Any]:
    """Make one network, let it claim, and audit it in at most so many minutes."""
    name, make, claim, honest, eps = animal
    threat, model, started = Linf(eps=eps), make().eval(), time.perf_counter()
    claimed = None if claim is None else claim(model, batches, threat)
    found = audit(model, batches, threat, claim=claimed, options=AuditOptions(twin=twin, budget=minutes))
    row = {
        "name": name,
        "honest": honest,
        "eps": eps,
        "claim": found.claimed_accuracy,
        "own_protocol": claim is not None,
        "upper_bound": found.upper_bound,
        "verdict": found.verdict,
        "reasons": list(found.reasons),
        "failed": [check.name for check in found.checks if check.status == "fail"],
        "missing": list(found.missing),
        "warned": [check.name for check in found.checks if check.status == "warn"],
        "measured": {check.name: check.measured for check in found.checks if check.status != "pass"},
        "n": sum(len(batch.y) for batch in batches),
        "seconds": time.perf_counter() - started,
        "commit": provenance()["commit"],
    }
    print(f"{name:26} {row['seconds']:5.0f} s  {found.sentence}  [{', '.join(row['failed'])}]", flush=True)
    return row


def held(path: Path, rows: int) -> dict[str, Any] | None:
    """The row of a network, if it is there and of so many test rows."""
    row = json.loads(path.read_text()) if path.exists() else {}
    return row if row.get("n") == rows else None


def summed_up(found: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """All rows that there are, and how many were caught and accused."""
    table = [row for row in found.values() if row]
    caught = sum(row["verdict"] != "trustworthy" for row in table if not row["honest"])
    accused = sum(row["verdict"] == "doubtful" for row in table if row["honest"])
    honest = sum(row["honest"] for row in table)
    return {
        "caught": caught,
        "illusions": len(table) - honest,
        "accused": accused,
        "honest": honest,
        "not_finished": [name for name, row in found.items() if row is None],
        "rows": table,
    }


def part_of(text: str) -> tuple[int, int]:
    """Read "1/2": the first of every two."""
    first, count = map(int, text.split("/"))
    if not 1 <= first <= count:
        raise ValueError(text)
    return first, count


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """One line per network."""
    lines = ["| network | kind | its own claim | left at most | verdict | failed checks |", "|---|---|---|---|---|---|"]
    for row in rows:
        protocol = "own protocol" if row["own_protocol"] else "PGD-20"
        claim, bound = f"{100 * row['claim']:.1f}% ({protocol})", f"{100 * row['upper_bound']:.1f}%"
        kind = "sound" if row["honest"] else "broken"
        failed = ", ".join(row["failed"]) or "none"
        lines.append(
            f"| {row['name']}, eps {255 * row['eps']:.3g}/255 | {kind} | {claim} | {bound} | {row['verdict']} | {failed} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", choices=("digits", "faces", "cifar10"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--part", type=part_of, default=(1, 1), metavar="I/N", help="every N-th network from the I-th on")
    parser.add_argument("--rows", type=int, help="test rows")
    parser.add_argument("--budget", type=float, default=30.0, help="minutes for each audit; more where the cores are shared")
    parser.add_argument("--checkpoints", type=Path, default=Path())
    parser.add_argument("--cells", type=Path, default=Path("results/reproduce/cpu"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.zoo in ("digits", "faces"):
        batches, twin = Digits(test_limit=given.rows or ROWS).test(batch_size=50), trained(BN(), Standard(), 99)
        animals = list(first_zoo() if given.zoo == "digits" else faces())
    else:
        few = given.rows or FEW
        batches = Cifar10(test_limit=few).test(batch_size=few // 2)
        animals = list(second_zoo(given.checkpoints, given.cells, given.folder / "grown"))
        twin = OldCellStore(CELLS, cpu(), given.cells, silent).network("bn-standard", 1)
    paths = {one[0]: given.folder / "animals" / f"{one[0].replace(' ', '-').replace(',', '')}.json" for one in animals}
    rows, (first, count) = sum(len(batch.y) for batch in batches), given.part
    for animal in [one for one in animals if given.only in one[0]][first - 1 :: count]:
        if held(paths[animal[0]], rows) is None:
            write(paths[animal[0]], json.dumps(look(animal, batches, twin, given.budget), indent=2) + "\n")
    record = summed_up({name: held(path, rows) for name, path in paths.items()})
    print(f"caught {record['caught']} of {record['illusions']}, accused {record['accused']} of {record['honest']}")
    record = provenance() | {"command": f"python benchmarks/zoo.py {given.zoo} FOLDER", "zoo": given.zoo} | record
    write(given.folder / "zoo.md", to_markdown(record["rows"]))
    write(given.folder / "zoo.json", json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
