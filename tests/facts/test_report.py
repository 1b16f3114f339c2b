"""The report: self-contained, escaped, the same numbers everywhere, words that follow the numbers."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess

import pytest
from worlds import images, labels, trained

from normwise.attacks import FGSM, PGD
from normwise.intervals import of_batches, of_rows
from normwise.norms import NORMS
from normwise.record import Check, Result, Training, provenance
from normwise.report import page, tables
from normwise.report.headline import headline
from normwise.threats import Linf
from normwise.types import Batch
from normwise.verdict import evaluate

BASE = evaluate(trained(), [Batch(images(), labels(), labels())], Linf(), (FGSM(), PGD(steps=2))).evaluation
COUPLED = {"bnwot", "rn"}


def cell(norm, recipe, robust, seed=0, label=None):
    score = of_batches([robust // 20] * 20, 25) if norm in COUPLED else of_rows(robust, 500)
    evaluation = dataclasses.replace(
        BASE,
        seed=seed,
        coupled=norm in COUPLED,
        clean_accuracy=of_rows(490, 500),
        robust_accuracy=score,
        per_attack={"fgsm": of_rows(robust + 5, 500), "pgd-2": score},
        alone_accuracy=0.25 if norm in COUPLED else None,
        checks=(Check(name="row independence", status="warn" if norm in COUPLED else "pass", measured="m", why="w"),),
    )
    training = Training(
        seconds=7.5, forwards=300, backwards=200, epochs=2, best_epoch=1, validation={}, parameters=1000, trained_parameters=1000
    )
    experiment = {"norm": {"name": norm, "label": label or NORMS[norm].label}, "recipe": {"name": recipe}, "model": {"name": "resnet"}}
    return Result(name=f"{norm}-{recipe}", experiment=experiment, training=training, evaluation=evaluation)


def grid(**robust):
    values = {"bn": 10, "bnwot": 40, "rnt": 14, "rn": 240, "gn": 5, "none": 12} | robust
    return [cell(norm, recipe, value + 200 * (recipe == "adversarial")) for recipe in ("standard", "adversarial") for norm, value in values.items()]


def write(out, results, **options):
    return page.write(out, results, title="a bench", provenance=provenance(), **options)


def test_the_folder_holds_page_records_table_and_figures_with_the_same_numbers(tmp_path):
    results = grid()
    html = write(tmp_path, results).read_text()
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    data = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == len(data["cells"]) == len(results) == 12
    for row, one, result in zip(rows, data["cells"], results, strict=True):
        score = result.evaluation.robust_accuracy
        assert float(row["worst_case"]) == one["evaluation"]["robust_accuracy"]["value"] == score.value
        assert (float(row["worst_case_low"]), int(row["worst_case_n"])) == (score.low, score.n)
        assert float(row["training_seconds"]) == 7.5
        assert f'data-value="{score.value}"' in html
    for name in ("accuracy", "cost"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "figures" / f"{name}.svg").read_text()


def test_the_page_asks_for_nothing_outside_itself(tmp_path):
    html = write(tmp_path, grid()).read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", html)
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', html)) <= set(ids)


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, grid())
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name


def test_text_from_names_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    results = [*grid(), cell("gn", evil, 100, label=evil)]
    html = write(tmp_path, results, failures={evil: evil}).read_text()
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in html


def test_the_words_follow_the_numbers():
    nothing = headline(grid())
    assert nothing.answer.startswith("No: no norm with independent rows is more robust than BatchNorm by 5 points")
    assert any("RobustNorm reading the batch† 48.0%" in sentence for sentence in nothing.reasons)
    found = headline(grid(gn=100))
    assert found.answer.startswith("Yes, here")
    assert "GroupNorm (standard training, 20.0%)" in found.answer
    assert "RobustNorm reading" not in found.answer  # coupled rows never make the answer
    assert re.search(r"Below it: .*no norm 2\.4%", headline(grid(bn=100)).reasons[0])
    assert any("4 of 12 networks couple" in caution for caution in nothing.cautions)
    assert any("One seed" in caution for caution in nothing.cautions)
    seeds = [cell("bn", "standard", robust, seed) for seed, robust in enumerate((0, 100))]
    assert not any("One seed" in caution for caution in headline(seeds).cautions)
    assert "BatchNorm keeps 10.0%" in " ".join(headline(seeds).reasons)


def test_one_run_and_failures_have_a_page_too(tmp_path):
    single = dataclasses.replace(cell("bn", "standard", 50), training=None, experiment={})
    html = write(tmp_path, [single], failures={"gn-standard": "out of memory"}).read_text()
    assert "10.0% [7.7, 12.9] of the test images are still classified correctly" in html
    assert "gn-standard did not finish: out of memory" in html
    with pytest.raises(ValueError, match="nothing to report"):
        write(tmp_path, [])


def test_markdown_has_a_row_for_each_result():
    text = tables.markdown(grid())
    assert len(text.splitlines()) == 14
    assert "| BatchNorm | standard | no | 98.0% [96.4, 98.9] |" in text


def browser():
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(not browser(), reason="no headless browser here: install Debian's chromium to run this")
def test_a_click_on_a_header_sorts_the_table_and_nothing_goes_wrong(tmp_path):
    path = write(tmp_path, grid())
    probe = """<script>
      const errors = []; window.onerror = message => errors.push(message);
      const head = [...document.querySelectorAll("#results ~ .scroll th")].find(h => h.textContent.startsWith("worst case"));
      const column = [...head.parentNode.cells].indexOf(head), order = () => [...head.closest("table").tBodies[0].rows].map(r => r.cells[column].dataset.value);
      head.querySelector("button").click(); const down = order(); head.querySelector("button").click(); const up = order();
      document.title = JSON.stringify({down, up, sort: head.ariaSort, errors, wide: document.documentElement.scrollWidth > innerWidth});
    </script></body>"""
    path.write_text(path.read_text().replace("</body>", probe))
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    words = [browser(), "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dom = subprocess.run([*words, path.as_uri()], capture_output=True, text=True, timeout=60, check=True).stdout
    seen = json.loads(re.search(r"<title>(.*?)</title>", dom, re.S)[1].replace("&quot;", '"'))
    numbers = [float(value) for value in seen["down"]]
    assert numbers == sorted(numbers, reverse=True)
    assert [float(value) for value in seen["up"]] == sorted(numbers)
    assert (seen["sort"], seen["errors"], seen["wide"]) == ("ascending", [], False)
