"""What pages are made of: colours that can be read, an audit's verdict first, series, pictures, checks that lead to their docs."""

import base64
import inspect
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from normwise.auditing.checks import CHECKS, GAP
from normwise.evaluation import sanity_checks
from normwise.evaluation.artifacts import kept_examples, pictures
from normwise.report import audit, audit_words, diagnosis, page, sheet, shifts
from normwise.report import words as report_words
from normwise.report.series import plot
from normwise.report.words import anchor
from records import audited, diagnosed, example, result, shifted

CSS = (Path(audit.__file__).parent / "page.css").read_text()
DOCS = (Path(__file__).parents[2] / "docs/reference/checks.md").read_text()
HERE = Path()


def luminance(colour):
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes():
    roots = [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.S)]
    light, dark, paper = roots
    return {"light": light, "dark": light | dark, "print": light | paper}


def test_contrast_is_that_of_the_standard():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_every_colour_of_text_can_be_read_on_every_ground(theme):
    colours = themes()[theme]
    inks = [name for name in colours if name not in ("paper", "tint", "hover", "faint")]
    assert {"ink", "muted", "link", "amber", "red", "green", "series0", "series3"} <= set(inks)
    grounds = ("paper", "tint") if theme == "print" else ("paper", "tint", "hover")
    faint = {(ink, on): contrast(colours[ink], colours[on]) for ink in inks for on in grounds}
    assert {pair: round(ratio, 2) for pair, ratio in faint.items() if ratio < 4.5} == {}


def words(page):
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_verdict_comes_first_in_words_then_who_may_do_what():
    text = words(audit.to_html([audited()], HERE))
    order = (
        "Doubtful: PGD-20 leaves 53.0%, at most 12.0% of these images stay correct.",
        "Without an attack 94.0% of them are right.",
        "more than 5 points off the claim (here 41.0)",
        "For other images like these, 7.0–18.0% may be left (95% interval, n = 200).",
        "Could not run: transfer.",
    )
    order += ("Pgd-50 on dlr and others leave 12.0%", "Threat card", "that is 8/255", "12.0% of images stay correct")
    order += (
        "22.0% of images stay correct, each attacked alone",
        "70.0% of unchanged images stay correct",
        "Which images share a batch",
    )
    order += (
        "Failed checks and warnings 3 of 5",
        "fail Repeated and lonely answers",
        "warn More steps",
        "could not run Transfer",
        "pass Batch size",
    )
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    text = words(audit.to_html([audited(verdict="trustworthy", claimed=0.45, bound=0.435, coupled=False)], HERE))
    assert "Trustworthy: PGD-20 leaves 45.0%, the strongest attacks leave 43.5%, less than 5 points lower." in text
    assert "Each image alone: the other images of the batch were measured not to matter." in text
    assert "Failed checks" not in text
    given = audited(verdict="trustworthy", claimed=0.45, bound=0.435, coupled=False)
    assert "PGD-20 alone" in text  # an older record, whose command names no claim
    given["provenance"] = {"command": "normwise audit net --claim 0.45"}
    text = words(audit.to_html([given], HERE))
    assert "Trustworthy: claimed 45.0%, the" in text
    assert "Claimed under attack" in text
    nobody = {**given, "claimed_under": {"threat": given["threat"], "attacks": [{"name": "pgd", "steps": 20}]}}
    text = words(audit.to_html([nobody], HERE))
    assert "Trustworthy: PGD-20 leaves 45.0%, the" in text
    assert "No claim was given: it is what the first attack leaves, PGD-20." in text
    assert "PGD-20 alone" in text
    nobody["reasons"] = ["pgd-20 could not run, so there is no claim"]
    assert "PGD-20 leaves" not in words(audit.to_html([nobody], HERE))
    third = audited(verdict="not established", bound=0.5, coupled=False) | {"reasons": ["the bound is loose"]}
    text = words(audit.to_html([third], HERE))
    assert "Not established: PGD-20 leaves 53.0%, at most 50.0% of these images stay correct." in text
    assert "No check contradicts the claim" in text
    assert "The bound is loose" in text
    assert "! not established" in words(audit.to_html([third, third], HERE))
    with pytest.raises(ValueError, match="at least one audit"):
        audit.to_html([], HERE)


def test_a_record_of_the_first_audits_still_makes_a_page():
    old = {key: value for key, value in audited().items() if key not in ("model", "reach", "examples", "provenance")}
    old |= {
        "found_by": "pgd-20",
        "checks": [{k: v for k, v in c.items() if k not in ("series", "n")} for c in old["checks"]],
    }
    text = words(audit.to_html([old], HERE))
    assert "Which attack broke how many images pgd-20." in text
    assert "Adversarial images" not in text


def test_several_audits_stand_beside_each_other(tmp_path):
    sound = audited(verdict="trustworthy", claimed=0.45, bound=0.435, coupled=False) | {"checks": audited()["checks"][:1]}
    path = audit.write(tmp_path, [audited(), sound, audited()])
    text = words(path.read_text())
    assert "2 doubtful and 1 trustworthy." in text
    assert "package.module:network #3" in text
    runs = [one | {"run": f"audit-{when}"} for one, when in zip((audited(), sound), ("before", "after"), strict=True)]
    lead = "package.module:network (audit-before): doubtful, at most 12.0% stay correct; package.module:network (audit-after): trustworthy"
    assert lead in words(audit.to_html(runs, tmp_path))
    assert text.count("not in this audit") == 4
    assert "| package.module:network | Linf, eps 8/255 | doubtful | 53.0% | 12.0% |" in (tmp_path / "audits.md").read_text()
    assert "more steps (n = 200); transfer |" in (tmp_path / "audits.md").read_text()
    assert "20.0% are left n = 200 Why it matters" in text
    assert {"audits.csv", "audits.md", "audits.tex", "audit.html"} == {one.name for one in tmp_path.iterdir()}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"verdict": 3}', "nonsense"])
def test_a_file_that_is_no_audit_is_named(text, tmp_path):
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(ValueError, match=r"audit\.json is not the record of an audit"):
        audit.read(tmp_path / "audit.json")


def test_a_series_lies_where_its_numbers_say():
    steps = plot({"over": "steps", "values": [1, 10, 100], "scores": [1.0, 0.5, 0.0]})
    assert [x for x, *_ in steps.curves[0][1]] == pytest.approx([13, 53.5, 94])  # a factor of ten is as wide as the next
    assert [y for _, y, _ in steps.curves[0][1]] == pytest.approx([5, 44.5, 84])
    assert [tick.name for tick in steps.x] == ["1", "10", "100"]
    assert steps.numbers == [("1", "100.0%"), ("10", "50.0%"), ("100", "0.0%")]
    radius = plot({"over": "radius", "values": [2 / 255, 4 / 255], "scores": [0.5, 0.2]}, in_255ths=True)
    assert [tick.name for tick in radius.x] == ["2/255", "4/255"]
    odd = plot({"over": "radius", "values": [0.05, 0.1], "scores": [0.05, 0], "of": "robust accuracy"}, in_255ths=True)
    assert odd.numbers == [("0.05", "5.0%"), ("0.1", "0.0%")]
    assert [tick.name for tick in odd.y] == ["0%", "25%", "50%", "75%", "100%"]
    margin = plot({"over": "share", "values": [0, 1], "scores": [-0.5, 4.2], "of": "margin"})
    assert [tick.name for tick in margin.y] == ["-1", "0", "1", "2", "3", "4", "5"]
    assert margin.numbers == [("0", "-0.5"), ("1", "4.2")]
    assert plot({"over": "steps", "values": [3], "scores": [0.2], "of": "loss"}).curves[0][1][0][0] == pytest.approx(13)
    with pytest.raises(ValueError, match="2 values and 1 scores"):
        plot({"over": "steps", "values": [1, 2], "scores": [0.1]})


def test_what_stands_beside_a_series_shares_its_axes_and_its_table():
    series = {"over": "share", "values": [0, 1], "scores": [0, 4], "of": "margin"}
    both = plot(series | {"beside": {"along random directions": [1, -1]}})
    assert [tick.name for tick in both.y] == ["-1", "0", "1", "2", "3", "4"]  # room for every curve
    first, (name, points) = both.curves
    assert (first[0], name) == ("margin", "along random directions")
    assert [x for x, *_ in points] == [x for x, *_ in first[1]]
    assert [y for _, y, _ in points] == pytest.approx([52.4, 84])
    assert both.numbers == [("0", "0", "1"), ("1", "4", "-1")]
    with pytest.raises(ValueError, match="series of noise over share has 2 values and 1 scores"):
        plot(series | {"beside": {"noise": [1]}})
    page_text = audit.to_html([audited()], HERE)
    assert "Margin Along random directions Along noise 0.1 0.1 0 0.1 0.5 2.5 0.3 0.1 1 4.2 -0.4 0.2" in words(page_text)
    dashes = [
        re.search(rf"\.{look} {{(.*?)}}", CSS)[1] for look in re.findall(r'<li><svg [^>]*><g class="(line\d)"', page_text)
    ]
    assert len({re.sub(r"--series: [^;]*;", "", look) for look in dashes}) == 3  # told apart without colour


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5), (2, 4, 5), (3, 2, 4, 5), (2, 9), (7,)])
def test_pictures_show_pixels_as_they_are_and_differences_at_full_contrast(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    x_adv = x.clone()
    x_adv.flatten()[0] += 0.1
    opened = []
    drawn = pictures(x, x_adv)
    for uri in (drawn[f"{name}_png"] for name in ("clean", "adversarial", "difference")):
        assert uri.startswith("data:image/png;base64,")
        opened.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))))
    clean, _, difference = opened
    frames = shape[1] if len(shape) == 4 else 1
    assert clean.shape[:2] == ((shape[-2], frames * shape[-1]) if len(shape) > 2 else (1, shape[-1]))
    assert ("clean_apng" in drawn) == (len(shape) == 4)
    if len(shape) == 3 and shape[0] != 2:
        assert np.abs(clean / 255 - x.permute(1, 2, 0).squeeze().numpy()).max() <= 0.5 / 255 + 1e-6
    assert difference.max() == 255  # the largest change
    assert difference.min() == 128  # no change


def test_a_clip_is_drawn_frame_by_frame_and_moving():
    x = torch.rand(1, 12, 4, 5, generator=torch.Generator().manual_seed(0))
    x_adv = (x + 0.01 * torch.arange(12)[:, None, None]).clamp(max=1)
    drawn = pictures(x, x_adv)
    (example,) = sheet.examples_of([{"id": 3, **drawn}])
    assert example.caption.startswith("Clip 3")
    for picture in example.pictures:
        still, moving = (
            Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) for uri in (picture.uri, picture.moving)
        )
        assert (still.size, moving.size, moving.n_frames, moving.info["loop"]) == ((40, 4), (5, 4), 8, 0)
        for number in range(8):
            moving.seek(number)
            assert np.array_equal(np.asarray(moving.convert("L")), np.asarray(still)[:, 5 * number : 5 * number + 5])
    assert np.asarray(still)[:, :5].max() == 128  # nothing changed in the first frame
    (without,) = sheet.examples_of([{"id": 3, **drawn, "clean_apng": "https://evil.example/x.png"}])
    assert without.pictures[0].moving == ""


def test_who_wants_no_motion_sees_the_frames_alone():
    css = (Path(sheet.__file__).parent / "page.css").read_text()
    (rules,) = re.findall(r"@media [^{]*prefers-reduced-motion: reduce[^{]*\{(.*?)\n\}", css, re.DOTALL)
    assert re.search(r"\.film \.moving \{ display: none; \}", rules)


def test_a_picture_from_elsewhere_is_left_out():
    outside = example() | {"clean_png": "https://evil.example/x.png", "adversarial_png": 'data:image/png;base64,"><script>'}
    (drawn_example,) = sheet.examples_of([outside])
    assert [one.shows for one in drawn_example.pictures] == ["image 17, difference of the two at full contrast"]
    assert drawn_example.caption == "Image 17, class 3: taken for 3, then 8 after pgd-20"
    assert sheet.examples_of([{"id": 1}]) == []


def test_examples_that_are_none_are_named(tmp_path):
    assert kept_examples(tmp_path) == []
    for text in ("{", "3", "[3]"):
        (tmp_path / "examples.json").write_text(text)
        with pytest.raises(ValueError, match=r"examples\.json .* normwise attack again"):
            kept_examples(tmp_path)


def test_every_check_leads_to_its_place_in_the_docs():
    asked = [*(one.name for one in CHECKS), sanity_checks.ELSEWHERE, sanity_checks.MASKED]
    asked += re.findall(r'check\(\s*"([a-z ]+)"', inspect.getsource(sanity_checks))
    assert len(asked) > 20
    places = re.findall(r'<a id="([^"]+)"></a>', DOCS)
    assert len(set(places)) == len(places)
    assert {anchor(name) for name in asked} == set(places)


def test_without_script_a_page_shows_everything_and_marks_say_their_values(tmp_path):
    whole = page.write(tmp_path, [result("bn"), result("gn", worst=0.5)], title="", provenance={}).read_text()
    whole = re.sub(r"<(style|script)>.*?</\1>", "", whole, flags=re.S)
    assert re.findall(r"<(\w+)[^>]* hidden", whole) == ["details", "p"]  # the filter, which needs a script, and its count
    sentence = "GroupNorm, standard training: clean 90.0% [86.0, 94.0]; worst case 50.0% [46.0, 54.0]"
    assert whole.count(f'<g class="said" data-of="1"><title>{sentence}</title>') == 1
    assert f'<g class="said" data-of="1"><title>{sentence}; trained in 10.0 s</title>' in whole  # over its cost
    assert f"<title>{sentence}</title>" in (tmp_path / "figures/accuracy.svg").read_text()


def leads(page):
    """The addresses of other files that a page leads to."""
    return set(re.findall(r'<a[^>]* href="([^"#]*docs/[^"#]*)#', page))


@pytest.mark.parametrize("where", ["page", "runs/a b/page"])
def test_a_page_leads_to_the_docs_from_wherever_it_lies(where, tmp_path, monkeypatch):
    out = tmp_path / where
    monkeypatch.chdir(tmp_path)
    for path in (
        audit.write(Path(where), [audited()]),
        page.write(Path(where), [result(warn=True)], title="", provenance={}),
    ):
        (address,) = leads(path.read_text())
        assert (out / address).resolve() == Path(__file__).parents[2] / "docs/reference/checks.md"


def test_without_a_checkout_a_page_leads_nowhere(monkeypatch, tmp_path):
    monkeypatch.setattr(report_words, "_CHECKS", tmp_path / "docs/reference/checks.md")
    monkeypatch.setattr(page.figures, "draw", lambda found, out: [])
    written = page.write(tmp_path, [result(warn=True)], title="", provenance={}).read_text()
    for whole in (audit.to_html([audited()], tmp_path), written):
        assert not leads(whole)
        assert "ee docs/reference/checks.md" in words(whole)


def test_a_diagnosis_says_who_controls_what(tmp_path):
    record = diagnosed()
    few = [one | {"tables": {"gamma": one["tables"]["gamma"]}} for one in record["models"]]
    whole = diagnosis.write(tmp_path, record | {"models": few})[0].read_text()
    text = words(whole)
    order = (
        "Use of features",
        "Linf: every pixel may move by at most eps = 0.125",
        "that is 31.88/255; 2 of the 16 grey levels",
    )
    order += ("Drift, steps 1 and 5, corruption fog: PGD on the cross-entropy", "Gamma, dead 0.001: no attack, clean images")
    order += ("Each image alone", "(independent images)", "All images of a batch together", "(coupled images)")
    order += ("Which images share a batch", "12 test images of digits, in fixed batches of 8, the networks in eval mode")
    order += ("Everything: architecture, weights", "Independent: bn and plain", "): bnwot.")
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert '<a href="#threat">Threat card</a></figcaption>' in whole


def test_natural_shifts_say_that_nobody_attacked(tmp_path):
    whole = shifts.write_page(tmp_path, shifted()).read_text()
    text = words(whole)
    order = (
        "By kind",
        "no attack ( threat card )",
        "None: there is no attacker, and no eps limits",
        "Attacks None.",
        "Nothing: there is no attacker.",
    )
    order += (
        "a whole batch (2 kinds, severities 1, 5); which images share a batch",
        "40 test images of digits, in fixed batches of 20",
    )
    order += ("other images of the batch): runs/bn, alpha 1.",)
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert whole.count('<a href="#threat">Threat card</a></figcaption>') == 2


def test_the_page_of_an_audit_tells_the_rule_by_which_it_is_judged():
    assert audit_words.GAP == GAP
