"""An attack is one file and one line of import: it is then on the command line, at the front door and in evaluations."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import normwise

NUDGE = '''"""Nudge: every pixel a little brighter."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..types import Images, Labels, Region
from .base import BaseAttack
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class Nudge(BaseAttack):
    """Every pixel brighter by a share of the radius.

    Options
        share   of the radius
    """

    name: ClassVar[str] = "nudge"
    black_box: ClassVar[bool] = True

    share: float = 1.0

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        return region.project(x + self.share * region.radius), torch.full_like(y, -1)
'''
LINE = "from .nudge import Nudge as Nudge\n"
SEEN = """
import torch
import normwise as nw
from normwise.__main__ import main

assert main(["list", "attacks"]) == 0
few = ["--data.test_limit", "10", "--strongest", "[]", "--device", "cpu"]
assert main(["evaluate", "nets:net", *few, "--attacks", "[{name: nudge, share: 0.5}]", "--out", "run"]) == 0
dark = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()  # class 1 where the sum of pixels is above 2
with torch.no_grad():
    dark[1].weight.copy_(torch.tensor([[0.0] * 4, [1.0] * 4])), dark[1].bias.copy_(torch.tensor([2.0, 0.0]))
x = torch.tensor([0.2, 0.45, 0.48]).view(3, 1, 1, 1).expand(3, 1, 2, 2).clone()
for share, left in ((1.0, 1), (0.4, 2)):
    found = nw.evaluate(dark, (x, torch.zeros(3, dtype=torch.long)), nw.Linf(0.1), nw.Nudge(share=share)).evaluation
    assert found.attacks == [{"name": "nudge", "share": share}]
    assert round(3 * found.robust_accuracy.value) == left
"""


def test_an_attack_is_one_file_and_one_line(tmp_path):
    source = tmp_path / "src/normwise"
    shutil.copytree(Path(normwise.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "attacks/nudge.py").write_text(NUDGE)
    package = source / "attacks/__init__.py"
    package.write_text(package.read_text().replace("from .pgd import PGD", f"{LINE}from .pgd import PGD"))
    net = "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    (tmp_path / "nets.py").write_text(net)
    words, environment = [sys.executable, "-c", SEEN], os.environ | {"PYTHONPATH": str(source.parent)}
    run = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert re.search(r"nudge +Every pixel brighter by a share of the radius\.", run.stdout)
    assert json.loads((tmp_path / "run/result.json").read_text())["evaluation"]["attacks"] == [
        {"name": "nudge", "share": 0.5}
    ]
