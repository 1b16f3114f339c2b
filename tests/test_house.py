"""The shape of the house: imports point down the floors, the front door is light, every example in the docs runs."""

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import normwise

SOURCE = Path(normwise.__file__).parent
FLOORS = [
    {"types", "registry", "losses", "rows", "modes", "seeding", "statistics", "passes"},
    {"norms", "threats", "data", "config", "command", "coupling", "record", "schedule", "folders", "sizes"},
    {
        "attacks",
        "surgery",
        "adoption",
        "limits",
        "layout",
        "fidelity",
        "trainable",
        "models",
        "training",
        "validation",
        "verdict",
        "judge",
        "checkpoints",
        "report",
        "intervals",
        "loading",
        "evidence",
        "folding",
        "firstlayer",
        "backward",
        "speed",
        "court",
        "doubts",
        "trial",
        "shelf",
        "curves",
        "planted",
        "robustbench",
        "reach",
        "adaptive",
        "controls",
        "illusions",
        "sharing",
        "damage",
    },
    {"recipes", "checks", "battery", "findings", "substitutes"},
    {"experiment", "evaluation", "selftests", "auditing", "diagnoses", "shifts"},
    {"presets", "bench"},
    {"reproduce"},
    {"cli", "__main__", "progress", "suits", "reports"},
]
FORBIDDEN = [  # who must not know whom, on whatever floor
    ("norms", {"attacks", "threats"}),
    ("threats", {"norms", "models"}),
    ("attacks", {"norms", "models"}),
    ("report", {"norms", "models", "attacks", "verdict"}),
]


def rooms():
    for path in sorted(SOURCE.rglob("*.py")):
        if path == SOURCE / "__init__.py":  # the front door, which nothing imports
            continue
        relative = path.relative_to(SOURCE)
        room = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == len(relative.parts):
                names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                yield from ((room, name, relative) for name in names if name != "__version__")


def test_imports_point_down_the_floors():
    floor = {room: number for number, level in enumerate(FLOORS, 1) for room in level}
    for room, other, path in rooms():
        assert floor[other] <= floor[room], f"{path} on floor {floor[room]} imports {other} on floor {floor[other]}"


@pytest.mark.parametrize(("room", "strangers"), FORBIDDEN)
def test_rooms_do_not_know_those_they_should_not(room, strangers):
    known = {other for one, other, _ in rooms() if one == room}
    assert not known & strangers


def test_global_random_states_are_seeded_in_one_place():
    seeding = [path.name for path in SOURCE.rglob("*.py") if re.search(r"torch\.manual_seed|fork_rng", path.read_text())]
    assert seeding == ["seeding.py"]


LIGHT = """
import sys, torch, numpy, jaxtyping
before = {name.split(".")[0] for name in sys.modules}
import normwise
for name in normwise.__all__: getattr(normwise, name)
import normwise.data, normwise.report
new = {name.split(".")[0] for name in sys.modules} - before - set(sys.stdlib_module_names) - {"normwise"}
assert not new, new
"""


def test_the_front_door_loads_no_third_party_module_but_torch_numpy_and_jaxtyping():
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_type_checkers_see_the_same_front_door():
    block = next(node for node in ast.parse((SOURCE / "__init__.py").read_text()).body if isinstance(node, ast.If))
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == normwise._HOME


def test_no_public_name_hides_behind_a_module_of_the_same_name():
    assert not set(normwise.__all__) & {module.name for module in pkgutil.iter_modules([str(SOURCE)])}


def test_help_and_version_are_answered_before_anything_heavy_is_imported():
    code = "import sys; from normwise.__main__ import main; main(['--help']); main(['--version']); assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert f"normwise {normwise.__version__}" in out


def test_every_public_name_has_a_docstring():
    for module in pkgutil.walk_packages([str(SOURCE)], "normwise."):
        loaded = importlib.import_module(module.name)
        assert loaded.__doc__, module.name
        for name, value in vars(loaded).items():
            if not name.startswith("_") and getattr(value, "__module__", None) == module.name and callable(value):
                assert value.__doc__, f"{module.name}.{name}"


def test_examples_in_docstrings_run():
    from normwise.seeding import generator
    from normwise.threats import L2, Linf
    from worlds import images, labels, trained

    world = {"model": trained(), "x": images(), "y": labels(), "generator": generator(0), "Linf": Linf, "L2": L2}
    tried = 0
    for module in pkgutil.walk_packages([str(SOURCE)], "normwise."):
        result = doctest.testmod(importlib.import_module(module.name), extraglobs=world)
        assert result.failed == 0, module.name
        tried += result.attempted
    assert tried > 3


def test_the_example_of_the_readme_runs():
    block = re.search(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.S)
    out = subprocess.run([sys.executable, "-c", block[1]], check=True, capture_output=True, text=True).stdout
    assert re.fullmatch(r"[\d.]+% \[[\d.]+, [\d.]+\] False\n", out)
