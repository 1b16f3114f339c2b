"""Pages in a real browser: no error, nothing from outside, tables that sort, pictures with a text, light, dark, narrow, on paper."""

import base64
import dataclasses
import html
import json
import re
import shutil
import subprocess

import pytest

from normwise.records import write
from normwise.report import audit, claims, diagnosis, improve, page, shifts
from records import HOSTILE, audited, diagnosed, example, film, grid, improved, png, result, shifted
from records import claims as claimed

WATCH = """<script>
const problems = [];
for (const name of ["error", "warn"]) console[name] = (...words) => problems.push(`console: ${words.join(" ")}`);
addEventListener("error", e => problems.push(`error: ${e.message ?? e.target.outerHTML}`), true);
addEventListener("unhandledrejection", e => problems.push(`rejected: ${e.reason}`));
addEventListener("securitypolicyviolation", e => problems.push(`${e.violatedDirective}: ${e.blockedURI}`));
</script>"""
ASK = """<script>
const luminance = rgb => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
  const c = rgb[i] / 255;
  return sum + weight * (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
}, 0);
const rgba = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
const ground = e => { const c = e ? rgba(getComputedStyle(e).backgroundColor) : [255, 255, 255, 1]; return c[3] ? c : ground(e.parentElement); };
const contrast = e => {
  const style = getComputedStyle(e), text = rgba(e.ownerSVGElement ? style.fill : style.color);
  const [one, other] = [luminance(text), luminance(ground(e))].sort((a, b) => b - a);
  return (one + 0.05) / (other + 0.05);
};
const written = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.checkVisibility();
addEventListener("load", () => {
  const folds = [...document.querySelectorAll("details")], before = folds.map(fold => fold.open);
  dispatchEvent(new Event("beforeprint"));
  const paper = folds.filter(fold => !fold.open).length;
  const faint = [...document.body.querySelectorAll("*")].filter(e => written(e) && contrast(e) < 4.5);
  dispatchEvent(new Event("afterprint"));
  const column = (table, i) => [...table.tBodies[0].rows].map(row => row.cells[i].dataset.sort ?? null);
  const tables = [...document.querySelectorAll("table.sortable")].map(table => [...table.tHead.rows[0].cells].map((head, i) => {
    const button = head.querySelector("button");
    const turn = () => { button.click(); return [head.getAttribute("aria-sort"), column(table, i)]; };
    return { kind: head.dataset.kind, focus: button.tabIndex, turns: [turn(), turn(), turn()],
             others: table.querySelectorAll("th[aria-sort]").length };
  }));
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  const box = e => e.getBoundingClientRect(), called = e => e.textContent.trim().slice(0, 40);
  const labels = [...document.querySelectorAll("svg")].map(svg => [box(svg), [...svg.querySelectorAll("text")].filter(e => e.checkVisibility() && called(e)).map(e => [called(e), box(e)])]);
  const inside = (one, room) => one.left > room.left - 2 && one.right < room.right + 2 && one.top > room.top - 2 && one.bottom < room.bottom + 2;
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const plots = labels.filter(([room]) => room.height > 40);
  const figure = document.querySelector("figure svg");
  const tip = document.querySelector(".tip"), marks = [...document.querySelectorAll(".said")], name = e => e?.getAttribute("aria-label");
  const tell = (mark, move) => { move(mark); const told = tip.hidden ? [] : tip.textContent.split("\\n"), place = box(tip); return [told.includes(name(mark)) && place.left >= 0 && place.right <= innerWidth, told.length]; };
  const over = mark => { mark.scrollIntoView({ block: "center" }); const { left, right, top, bottom } = box(mark); mark.dispatchEvent(new PointerEvent("pointermove", { bubbles: true, clientX: (left + right) / 2, clientY: (top + bottom) / 2 })); };
  const silent = marks.filter(mark => !name(mark) || !tell(mark, over)[0]).map(name);
  if (marks.length) marks[0].dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  const escaped = !tip || tip.hidden, mine = marks[0] && marks.filter(mark => mark.closest("figure") === marks[0].closest("figure"));
  if (mine) { mine[0].focus(); mine[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true })); }
  const next = mine && [document.activeElement === mine[1 % mine.length], mine.filter(mark => mark.tabIndex === 0).length];
  const gone = () => ["tr", "svg"].map(kind => document.querySelectorAll(`${kind}.off, ${kind} .off`).length);
  const choices = [...document.querySelectorAll(".filter:not([hidden]) fieldset")].map(choice => { const first = choice.querySelector("input"), turn = () => { first.click(); return gone(); }; return [turn(), turn()]; });
  const seen = {
    silent, escaped, next, choices, marks: marks.length,
    problems, tables, paper, folds: folds.length, restored: folds.every((fold, i) => fold.open === before[i]),
    outside: performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:")),
    dumb: [...document.images].filter(i => !i.alt || !i.naturalWidth).map(i => i.outerHTML.slice(0, 80)),
    nameless: [...document.querySelectorAll("svg")].filter(e => !e.closest("[role=img],[role=group][aria-label],[aria-hidden=true]")).length,
    faint: faint.map(e => `${contrast(e).toFixed(1)}: ${e.outerHTML.slice(0, 80)}`),
    sideways: document.documentElement.scrollWidth - innerWidth, width: innerWidth,
    dark: luminance(ground(document.body)) < 0.1, pictures: document.images.length, twice: ids.length - new Set(ids).size,
    lost: [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href")).filter(h => !document.getElementById(h.slice(1))),
    cut: plots.flatMap(([room, texts]) => texts.filter(([_, one]) => !inside(one, room)).map(([name]) => name)),
    overlaps: plots.flatMap(([_, texts]) => texts.flatMap(([name, a], i) => texts.slice(i + 1).filter(([_, b]) => meet(a, b)).map(([other]) => `${name} / ${other}`))),
    clipped: [...document.querySelectorAll(".stacked")].filter(e => e.parentElement.scrollWidth > e.parentElement.clientWidth + 1).map(called),
    figure: figure && [box(figure).top, box(figure).bottom], accuracy: [...document.querySelectorAll("td.worst, td[data-label='Left at most']")].slice(0, 1).map(e => box(e).right)[0] ?? 0,
    scripts: document.scripts.length, intruders: document.querySelectorAll("[onclick], [onerror], iframe, object, embed").length,
  };
  parent.postMessage([location.pathname.split("/").at(-1), seen], "*");
});
</script>"""
PICTURES = {"bench": 12, "audit": 12, "audits": 12, "shifts": 2}  # that are images; figures are SVG
TABLES = {"bench": 2, "audit": 0, "audits": 2, "claims": 3, "diagnose": 7, "improve": 1, "shifts": 1}
FRAMES = """<!doctype html><meta name="color-scheme" content="light dark"><body><script>
const answers = {};
addEventListener("message", e => { answers[e.data[0]] = e.data[1]; document.title = JSON.stringify(answers); });
</script>"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser: pages are not tried in one; apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Every kind of page, names and words hostile, as text."""
    out = tmp_path_factory.mktemp("pages")
    untrained = dataclasses.replace(result("none", "adversarial", 0.4, label=HOSTILE), training=None)
    results = [*grid(gn_adversarial=0.6)[:-1], untrained]
    clips = [film(row, HOSTILE) for row in range(2)]
    examples = [[example(row, HOSTILE) for row in range(4)], clips, *[[]] * (len(results) - 2)]
    path = page.write(out, results, title=HOSTILE, provenance={}, failures={"ln": HOSTILE}, examples=examples)
    sound = audited(HOSTILE, verdict="trustworthy", bound=0.5, coupled=False)
    natural = shifted(HOSTILE)
    for kind in natural["kinds"]:
        write(out / "examples" / f"{kind}.png", base64.b64decode(png().split(",")[1]))
    return {
        "bench": path.read_text(),
        "audit": audit.to_html([audited(HOSTILE)], out),
        "audits": audit.to_html([audited(HOSTILE), sound, audited()], out),
        "claims": claims.to_html(*claimed(HOSTILE)),
        "diagnose": diagnosis.write(out, diagnosed(HOSTILE))[0].read_text(),
        "improve": improve.write_page(out, improved(HOSTILE)).read_text(),
        "shifts": shifts.write_page(out, natural).read_text(),
    }


def look(browser, texts, folder, *, dark=False, width=1280):
    """Open pages side by side in one browser, ask each, and return its answers by name."""
    frames = FRAMES
    for name, text in texts.items():
        asked = text.replace("<head>", f"<head>{WATCH}", 1).replace("</body>", f"{ASK}</body>", 1)
        (folder / f"{name}.html").write_text(asked)
        frames += f'<iframe src="{name}.html" width="{width}" height="900" style="border: 0"></iframe>'
    (folder / "frames.html").write_text(frames)
    quiet = "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        *quiet.split(),
        f"--user-data-dir={folder / 'profile'}",
    ]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--window-size=1300,900"]
    options += ["--virtual-time-budget=5000", "--dump-dom", (folder / "frames.html").as_uri()]
    ran = subprocess.run([browser, *options], capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(\{.*?\})</title>", ran.stdout, re.S)
    assert found, ran.stdout[-500:] + ran.stderr[-2000:]
    return {name.removesuffix(".html"): seen for name, seen in json.loads(html.unescape(found[1])).items()}


@pytest.fixture(scope="module", params=[(False, 400), (True, 1280)], ids=["light and narrow", "dark and wide"])
def looked(request, browser, pages, tmp_path_factory):
    """What the browser answers about every page."""
    dark, width = request.param
    return dark, width, look(browser, pages, tmp_path_factory.mktemp("browser"), dark=dark, width=width)


@pytest.mark.parametrize("name", ["bench", "audit", "audits", "claims", "diagnose", "improve", "shifts"])
def test_a_page_works(looked, name):
    dark, width, answers = looked
    seen = answers[name]
    assert (seen["dark"], seen["width"]) == (dark, width)
    for what in ("problems", "outside", "dumb", "faint", "lost", "cut", "overlaps", "clipped", "silent"):
        assert seen[what] == [], what
    assert seen["accuracy"] < width  # without scrolling sideways
    if width > 1000:
        assert seen["figure"][0] < 900  # the first screen shows a figure
    for what in ("nameless", "twice", "intruders", "sideways"):
        assert seen[what] == 0, what
    assert seen["scripts"] == 3  # its own, and the two of this test
    assert (seen["paper"], seen["restored"]) == (0, True)
    assert (seen["folds"] > 0) == (name not in ("claims", "improve"))
    assert seen["marks"] > 0
    assert seen["escaped"]
    assert seen["next"] == [True, 1]  # an arrow leads on, and a figure is one stop of the tabulator
    assert len(seen["choices"]) == (2 if name == "bench" else 0)
    for off, on in seen["choices"]:
        assert min(off) > 0
        assert on == [0, 0]
    assert seen["pictures"] >= PICTURES.get(name, 0)
    assert len(seen["tables"]) == TABLES[name]
    for head in (head for table in seen["tables"] for head in table):
        check_sorting(**head)


def natural(key):
    """Numbers in words count as numbers: "claim 2" before "claim 10"."""
    return [(int(part), "") if part.isdigit() else (-1, part.casefold()) for part in re.findall(r"\d+|\D+", key)]


def check_sorting(kind, turns, focus, others):
    (first, keys), (second, turned), (third, again) = turns
    assert (first, second) == (("ascending", "descending") if kind == "words" else ("descending", "ascending"))
    assert (third, again, focus, others) == (first, keys, 0, 1)
    assert None not in keys  # every place says what it is sorted by
    for order, down in ((keys, first == "descending"), (turned, second == "descending")):
        there = [key for key in order if key]
        assert order == [*there, *[""] * (len(order) - len(there))]  # what is missing stays last
        if kind == "words":
            plain = [natural(key) for key in there if re.fullmatch(r"[A-Za-z0-9 ]+", key)]
            assert plain == sorted(plain, reverse=down)
        else:
            assert [float(key) for key in there] == sorted((float(key) for key in there), reverse=down)


FAULTY = """<!doctype html><html><head><style>p { color: #aaa }</style></head><body>
<img src="http://127.0.0.1:9/x.png"><svg></svg><div style="width: 2000px">wide</div><p>faint</p><details>shut</details><a href="#no">no</a>
<svg role="img" width="200" height="60"><text x="0" y="20">one</text><text x="3" y="20">other</text><text x="190" y="50">far out</text></svg>
<div style="overflow-x: auto"><table class="stacked"><tr><td style="min-width: 900px">wide</td></tr></table></div>
<b onclick="1"></b><script>console.error("told"); nothing.there()</script></body></html>"""


def test_the_questions_see_faults(browser, tmp_path):
    seen = look(browser, {"faulty": FAULTY}, tmp_path, width=420)["faulty"]
    assert any("told" in one for one in seen["problems"])
    assert any("nothing is not defined" in one for one in seen["problems"])
    assert seen["outside"] == ["http://127.0.0.1:9/x.png"]
    assert seen["sideways"] > 1000
    assert (seen["cut"], seen["overlaps"], seen["clipped"]) == (["far out"], ["one / other"], ["wide"])
    assert (
        len(seen["dumb"])
        == len(seen["faint"])
        == seen["nameless"]
        == seen["paper"]
        == seen["intruders"]
        == len(seen["lost"])
        == 1
    )
    with pytest.raises(AssertionError):
        check_sorting("number", [["descending", ["1", "2"]], ["ascending", ["2", "1"]], ["descending", ["1", "2"]]], 0, 1)
    with pytest.raises(AssertionError):
        check_sorting("number", [["descending", ["", "2"]], ["ascending", ["2", ""]], ["descending", ["", "2"]]], 0, 1)
