"""What docs/laboratory/benchmarks.md and docs/laboratory/method.md say in their tables is what the records and the claims say."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ratios():
    return script("ratios")


def test_the_tables_are_those_of_the_records(ratios):
    page = (ROOT / "docs/laboratory/benchmarks.md").read_text()
    assert ratios.tables() in page, "run python benchmarks/ratios.py docs/laboratory/benchmarks.md"
    assert ratios.within(page) == page


script("norms_page")  # which a part of readme.py imports


@pytest.mark.parametrize("part", script("readme").PARTS)
def test_pages_show_what_the_records_say(part):
    page, text = script("readme").renewed(part)
    assert page.read_text() == text, f"run python benchmarks/readme.py {part}"


def test_ratios_pair_runs_of_one_seed(ratios):
    runs = [("a", 0, 2), ("b", 0, 6), ("a", 1, 4), ("b", 1, 4), ("a", 2, 1)]  # seed 2 of one side alone
    timed = [dict(zip(("who", "seed", "seconds"), run, strict=True)) for run in runs]
    assert ratios.paired(timed, "seconds", "a", "b") == [3, 1]
    assert ratios.in_words([3, 1]) == "2.00 [1.00, 3.00]"
    assert ratios.in_words([22.04]) == "22.0 (one run)"


def test_the_method_says_what_the_claims_ask_and_what_can_be_detected():
    page = (ROOT / "docs/laboratory/method.md").read_text()
    assert "\n".join(script("method").effects()) in page, (
        "run python benchmarks/method.py effects, and put it into docs/laboratory/method.md"
    )
