"""Every record under results/ is read by whoever reads such records: what was measured once stays readable."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from normwise.__main__ import main
from normwise.experiments.papers.cell_store import CellStore
from normwise.experiments.papers.papers import CELLS
from normwise.experiments.papers.scale import HISTORY, SCALES
from normwise.records import read_results
from normwise.report import audit
from normwise.types import silent
from normwise.utils.run_folder import CONFIG
from toys import some

RESULTS = Path(__file__).parents[2] / "results"
BENCHMARKS = (
    "autoattack/",
    "digits-eps/",
    "zoo/",
    "neighbours.json",
    "shifts/frost.json",
)  # written by scripts, read by people


def found(pattern):
    return [str(path.relative_to(RESULTS)) for path in sorted(RESULTS.rglob(pattern))]


def within(held, now):
    """Whether what is held is there still; options that came later may stand beside it."""
    if isinstance(held, dict):
        return held.keys() <= now.keys() and all(within(one, now[key]) for key, one in held.items())
    if isinstance(held, list):
        return len(held) == len(now) and all(map(within, held, now))
    return held == now


def strict(constant):
    raise ValueError(f"{constant} is no JSON")


def test_every_record_is_json_of_a_kind_that_has_a_reader():
    kinds = {"result.json", "results.json", "record.json", "audit.json", "diagnose.json", "shifts.json", "claims.json"}
    kinds |= {"search.json", "model.json", "again.json"}
    for name in found("*.json"):
        json.loads((RESULTS / name).read_text(), parse_constant=strict)
        known = name.startswith((*BENCHMARKS, "two-threads/", "audit-digits/")) or Path(name).name in kinds
        assert known, f"{name}: name its reader here"


def test_no_record_names_a_path_of_the_machine_that_made_it():
    for folder in (RESULTS, RESULTS.parent / "benchmarks/results"):
        for path in (path for kind in ("*.json", "*.yaml", "*.csv") for path in folder.rglob(kind)):
            assert not (found := re.search(r"(?<=[\"\s=])/\w+/\w", path.read_text())), f"{path}: {found[0]}"


@pytest.mark.parametrize("name", [*found("result.json"), *found("results.json")])
def test_results_are_read_whole(name):
    held = json.loads((RESULTS / name).read_text())
    for one, read in zip(held.get("cells", [held]), read_results(RESULTS / name), strict=True):
        assert read.name == one["name"]
        assert (
            read.evaluation.headline.value
            <= read.evaluation.clean_accuracy.value
            == one["evaluation"]["clean_accuracy"]["value"]
        )
        assert len(read.evaluation.checks) == len(one["evaluation"]["checks"])


@pytest.mark.parametrize("name", [*found("audit.json"), "audit-digits/bnwot.json", "audit-digits/gn.json"])
def test_audits_are_read(name):
    assert audit.read(RESULTS / name)["n"] > 0


@pytest.mark.parametrize(
    "folder", some(["diagnose-cifar10", "shifts/resnet8", "reproduce/cpu", "reproduce/s", "bench-methods"], "bench-methods")
)
def test_runs_are_drawn_again(folder, tmp_path, capsys):
    assert main(["report", str(RESULTS / folder), "--out", str(tmp_path / "page")]) == 0, capsys.readouterr().err
    assert list((tmp_path / "page").glob("*.html"))


WRITERS = {
    "bench-digits": "bench",
    "bench-methods": "bench",
    "jsbn-digits": "bench",
    "columns-digits": "bench",
    "columns-digits-abnn": "bench",
    "columns-moving-digits": "bench",
    "columns-moving-digits-abnn": "bench",
    "columns-moving-digits-alone": "bench",
    "columns-longer/multibn": "evaluate",
    "columns-longer/bn-multi-worst": "evaluate",
    "cifar10-resnet20": "train",
    "published-resnet20": "evaluate",
    "shifts/resnet8": "shifts",
    "shifts/resnet20": "shifts",
    "reproduce/s": "reproduce",
}


@pytest.mark.parametrize("name", [str(Path(name).parent) for name in found(CONFIG)])
def test_settings_are_read_back_by_the_verb_that_wrote_them(name, capsys):
    verb, path = WRITERS[name], RESULTS / name / CONFIG
    assert main([verb, "--config", str(path), "--print_config"]) == 0, capsys.readouterr().err
    now, held = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(path.read_text())
    assert within(held, now)


@dataclass(frozen=True)
class Unread:
    """What the networks are made from, of images that need not be there."""

    name = "cifar10"
    classes = 10
    shape = (3, 32, 32)
    mean, std = (0.5,) * 3, (0.2,) * 3

    split_seed: int = 0
    test_from: int = 0
    test_limit: int = 0


@pytest.mark.parametrize("name", found("*.safetensors"))
def test_kept_weights_fit_their_networks(name):
    folder = (RESULTS / name).parent
    cell, seed = re.fullmatch(r"(.+)-seed(\d+)(?:-\w+)?", folder.name).groups()
    scale = (SCALES | HISTORY)[folder.parents[1].name]()
    store = CellStore(CELLS, replace(scale, data=Unread()), folder.parents[1], silent)
    store.place = lambda name, seed: folder
    assert not store.network(cell, int(seed)).training
