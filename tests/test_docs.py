"""README and docs: their code runs, their commands are valid, their links lead somewhere, their sentences are short."""

import re
import runpy
import shlex
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import normwise as nw
from normwise.__main__ import VERBS, main
from normwise.cli.examples import EXAMPLES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if not path.name.startswith("_"))]
SENTENCES = runpy.run_path(str(ROOT / "benchmarks/readability.py"))["sentences"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
MINE = """
import torch
from torch.utils.data import TensorDataset

import normwise as nw


def network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10)
    )


test_set, train_set = (
    TensorDataset(torch.cat([one.x for one in part]), torch.cat([one.y for one in part]))
    for part in map(list, (nw.Digits(test_limit=30).test(batch_size=30), nw.Digits(train_limit=200).train(batch_size=50, generator=nw.generator(0))))
)
"""


def blocks(page, kind):
    return [text for name, text in BLOCK.findall(page.read_text()) if name == kind]


def called(page):
    return str(page.relative_to(ROOT))


def searching(page):
    """Pages that audit take their time."""
    return pytest.param(page, marks=pytest.mark.slow) if "nw.audit(" in page.read_text() else page


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder as the pages take for granted: the reader's network, weights and images, and finished runs."""
    place = tmp_path_factory.mktemp("reader")
    (place / "mine.py").write_text(MINE)
    (place / "examples").symlink_to(ROOT / "examples")
    for run in ("train", "standard", "abnn", "a", "b", "bn", "rnt", "robust"):
        (place / "runs" / run).mkdir(parents=True)
    sys.path.insert(0, str(place))
    from mine import network, test_set, train_set

    torch.manual_seed(0)
    fitted = nw.fit(
        network(), train_set[:], nw.Standard(), nw.Linf(8 / 255), nw.Schedule(epochs=8, optimizer="adamw", lr=0.01), seed=0
    )
    torch.save(fitted.model.state_dict(), place / "net.pt")
    arrays = {
        f"{name}_{part}": one.numpy()
        for part, rows in (("train", train_set[:]), ("test", test_set[:]))
        for name, one in zip("xy", rows, strict=True)
    }
    np.savez(place / "images.npz", **arrays)
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (place / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(place / "images" / name / "one.png")
    yield place
    sys.path.remove(str(place))
    del sys.modules["mine"]


def given():
    """What pages of reference speak of without making it: a network with a layer of the name they use, its images, a threat model."""
    from mine import network, test_set

    x, y = test_set[:20]
    model = torch.nn.Sequential(OrderedDict(quantize=torch.nn.Identity(), rest=network())).eval()
    return {"nw": nw, "model": model, "batches": [(x, y)], "threat": nw.Linf(8 / 255), "targets": ((y + 1) % 10).tolist()}


@pytest.mark.parametrize("page", [searching(page) for page in PAGES if blocks(page, "python")], ids=called)
def test_the_code_of_a_page_runs(page, world, monkeypatch):
    monkeypatch.chdir(world)
    for text in blocks(page, "python"):
        if needs := re.match(r"# needs (\w+)", text):
            pytest.importorskip(needs[1])
        exec(compile(text, called(page), "exec"), given())


def commands(page):
    """The lines of a page that call normwise."""
    return [line for text in blocks(page, "sh") for line in text.splitlines() if line.startswith("normwise ")]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=called)
def test_the_commands_of_a_page_are_valid(page, world, monkeypatch, capsys):
    """They are read to the end, and say their settings instead of running."""
    monkeypatch.chdir(world)
    check(commands(page), capsys)


def test_the_examples_of_every_verb_are_valid(world, monkeypatch, capsys):
    assert set(EXAMPLES) == set(VERBS)
    monkeypatch.chdir(world)
    check([line for pair in EXAMPLES.values() for line in pair], capsys)


def check(lines, capsys):
    for line in lines:
        verb, *words = shlex.split(line)[1:]
        if verb == "status":
            words = ["--help"]
        elif verb != "list" and not verb.startswith("--") and "--help" not in words:
            words.append("--print_config")
        assert main([verb, *words]) == 0, (line, capsys.readouterr().err)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "docs/start.md", ROOT / "docs/howto/own-network.md", ROOT / "docs/howto/read-an-audit.md"],
    ids=called,
)
def test_the_commands_of_a_page_run(page, world, monkeypatch, tmp_path, capsys):
    for file in ("mine.py", "net.pt", "images.npz"):
        (tmp_path / file).symlink_to(world / file)
    monkeypatch.chdir(tmp_path)
    for line in commands(page):
        status = main(shlex.split(line)[1:])
        assert status == 0, (line, capsys.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_links_lead_somewhere(page):
    """To files, and to headings of three levels: the anchors that sphinx makes."""
    for link in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        if not link.startswith("http"):
            file, _, anchor = link.partition("#")
            goal = page.parent / file if file else page
            assert goal.exists(), link
            headings = re.findall(r"^#{1,3} (.*)", goal.read_text(), re.M) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^\w\s-]", "", one.lower()).replace(" ", "-") for one in headings}, link


@pytest.mark.parametrize("page", PAGES, ids=called)
def test_no_sentence_is_long(page):
    assert not [one for one in SENTENCES(page.read_text()) if len(one.split()) > 30]


def test_sentences_are_told_apart():
    text = "# Head\n\nOne `a. b` [link](x.md). Two?\n\n- three\n- four: no!\n\n| a | b. |\n\n```sh\nfive. six\n```\n"
    assert list(SENTENCES(text)) == ["One code link.", "Two?", "three", "four: no!"]


def test_the_settings_of_the_site_can_be_read():
    subprocess.run([sys.executable, "docs/conf.py"], cwd=ROOT, check=True)  # by themselves, as sphinx does
