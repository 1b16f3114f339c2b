"""The shape of the house: imports point down the floors, files form no circle, the front door is light, examples in the docs run."""

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import normwise
from mutations import FAULTS, misplaced

ROOT = Path(__file__).parents[1]
SOURCE = Path(normwise.__file__).parent
FLOORS = [  # a package may import those on lower floors, and itself; the modules at the root are one
    {"root"},
    {"utils"},
    {"data", "norms", "threats", "report"},
    {"models", "attacks"},
    {"training", "evaluation"},
    {"auditing", "diagnostics"},
    {"experiments"},
    {"cli"},
]
STRANGERS = [  # who must not know whom, neither by itself nor through others
    ("data", {"norms", "models", "attacks"}),
    ("norms", {"attacks", "threats", "models"}),
    ("threats", {"norms", "models"}),
    ("report", {"norms", "models", "attacks", "evaluation"}),
    ("models", {"attacks", "threats", "training"}),
    ("attacks", {"norms", "models"}),
    ("training", {"evaluation"}),
    ("evaluation", {"training"}),
]
LONGEST = 300  # lines of a file
MOST, TALLEST = 7, 60  # parameters of a function, and its lines of code; constructors of networks may have more parameters


def modules(folder, package=""):
    """Every module below a folder by its dotted name, with its file."""
    found = {}
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[package + name if name else package.rstrip(".")] = path
    return found


def imports(folder):
    """Which modules of a folder each of its modules imports: those beside it by a dot, or by name where the folder is no package."""
    known, found = modules(folder), {}
    for name, path in known.items():
        inside = name if path.name == "__init__.py" else name.rpartition(".")[0]
        arrows = set[str]()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                arrows |= {alias.name for alias in node.names} & known.keys()
            if not isinstance(node, ast.ImportFrom):
                continue
            base = inside.split(".")[: len(inside.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*filter(None, base), *(node.module or "").split(".")]).strip(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".strip(".")
                arrows.add(full if full in known else base)
        found[name] = (arrows & known.keys()) - {name, ""}
    return found


ARROWS = imports(SOURCE)
AT_ROOT = {"types", "registry", "config", "seeding", "losses", "limits", "records", "checkout"}
ROOM = {name: "root" if name in AT_ROOT else name.split(".")[0] for name in ARROWS}


def reached(name):
    """All modules that a module imports, itself or through others."""
    seen, left = set(), [name]
    while left:
        for other in ARROWS[left.pop()] - seen:
            seen.add(other)
            left.append(other)
    return seen


def test_imports_point_down_the_floors():
    floor = {room: number for number, level in enumerate(FLOORS, 1) for room in level} | {"__main__": 9, "": 9}
    for name, others in ARROWS.items():
        for other in others:
            down = floor[ROOM[other]] < floor[ROOM[name]] or ROOM[other] == ROOM[name]
            assert down, f"{name} on floor {floor[ROOM[name]]} imports {other} on floor {floor[ROOM[other]]}"


@pytest.mark.parametrize("folder", [SOURCE, ROOT / "benchmarks", ROOT / "tests"], ids=["normwise", "benchmarks", "tests"])
def test_files_form_no_circle(folder):
    """Take away what imports nothing that is left, again and again: what stays imports itself through others."""
    left = {name: set(others) for name, others in imports(folder).items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize(("room", "strangers"), STRANGERS, ids=[room for room, _ in STRANGERS])
def test_rooms_do_not_know_those_they_should_not(room, strangers):
    for name in ARROWS:
        if ROOM[name] == room:
            known = {other for other in reached(name) if ROOM[other] in strangers}
            assert not known, f"{name} knows {', '.join(sorted(known))}"


def test_the_map_is_the_house():
    """docs/house.md draws the floors as they are here, the highest first."""
    drawn = re.search(r"```\n(8 .*?)```", (ROOT / "docs/house.md").read_text(), re.S)[1]
    rows = [re.fullmatch(r"(\d)  (.+)", line) for line in drawn.strip().splitlines()]
    assert [(int(row[1]), set(row[2].split())) for row in rows] == [(n, FLOORS[n - 1]) for n in range(8, 0, -1)]
    assert {room for level in FLOORS for room in level} | {"__main__", ""} == set(ROOM.values())


def test_the_repository_holds_what_the_product_needs_and_no_large_file():
    """What tools leave behind is none of it; weights that a later step needs stay under 1.5 MB."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    names = listed.stdout.strip("\0").split("\0")
    places = {"benchmarks", "docs", "examples", "results", "src", "tests", ".ci"}
    single = {
        "CHANGELOG.md",
        "CITATION.cff",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
        ".gitignore",
    }
    assert {name.split("/")[0] for name in names} <= places | single
    assert not [name for name in names if (ROOT / name).is_file() and (ROOT / name).stat().st_size > 1.5e6]


def test_no_file_is_long():
    long = {
        str(path.relative_to(SOURCE)): n
        for path in modules(SOURCE).values()
        if (n := len(path.read_text().splitlines())) > LONGEST
    }
    assert not long


def sizes(path):
    """Each function of a file: its name, its parameters but for self and cls, its lines of code, whether it builds a network."""
    source = path.read_text().splitlines()
    for node in ast.walk(ast.parse("\n".join(source))):
        for one in ast.iter_child_nodes(node):
            if not isinstance(one, ast.FunctionDef):
                continue
            bound = isinstance(node, ast.ClassDef) and "staticmethod" not in map(ast.unparse, one.decorator_list)
            all_of = one.args
            more = filter(None, (all_of.vararg, all_of.kwarg))
            count = len([*all_of.posonlyargs, *all_of.args, *all_of.kwonlyargs, *more]) - bound
            lines = source[one.lineno - 1 : one.end_lineno]
            if ast.get_docstring(one):
                del lines[one.body[0].lineno - one.lineno : one.body[0].end_lineno - one.lineno + 1]
            code = [line for line in lines if re.match(r"\s*[^\s#]", line)]
            yield one.name, count, len(code), one.name == "__init__" and "super().__init__" in ast.unparse(one)


def test_no_function_is_large():
    files = [*SOURCE.rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    large = {
        (path.name, name)
        for path in files
        for name, count, lines, builds in sizes(path)
        if (count > MOST and not builds) or lines > TALLEST
    }
    assert not large


def test_global_random_states_are_seeded_in_one_place():
    seeding = [path.name for path in SOURCE.rglob("*.py") if re.search(r"torch\.manual_seed|fork_rng", path.read_text())]
    assert seeding == ["seeding.py"]


def test_one_process_loads_nothing_of_what_several_need():
    early = re.compile(
        r"^(?:from|import) \S*\b(?:distributed|synchronized) import|^from \.+ import .*\b(?:distributed|synchronized)\b",
        re.M,
    )
    assert not [path.name for path in SOURCE.rglob("*.py") if early.search(path.read_text())]


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
    from normwise.types import Search
    from toys import images, labels, trained

    world = {
        "model": trained(),
        "x": images(),
        "y": labels(),
        "generator": generator(0),
        "Linf": Linf,
        "L2": L2,
        "Search": Search,
    }
    tried = 0
    for module in pkgutil.walk_packages([str(SOURCE)], "normwise."):
        result = doctest.testmod(importlib.import_module(module.name), extraglobs=world)
        assert result.failed == 0, module.name
        tried += result.attempted
    assert tried > 3


def test_every_planted_fault_has_its_place():
    """So that `make mutations` can plant it; a line says which has lost its own."""
    assert misplaced(FAULTS) == []


def test_shapes_are_checked_in_tests():
    """In every call, with sizes of one name alike within it; of fields where a dataclass is made."""
    from normwise.losses import margin
    from normwise.threats import L2

    assert margin(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)).shape == (3,)
    for wrong in (torch.zeros(2, dtype=torch.long), torch.zeros(3), torch.zeros(3, 1, dtype=torch.long)):
        with pytest.raises(TypeError):
            margin(torch.zeros(3, 4), wrong)
    assert L2(eps=1).eps == 1
    with pytest.raises(TypeError):
        L2(eps="1")
