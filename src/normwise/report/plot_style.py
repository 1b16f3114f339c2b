"""Colours, type, marks and files of the figures: each is kept as PNG and SVG on white, and as SVG in the page's own colours."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..records import write

INK, MUTED, FAINT, PAPER = "#1b1f24", "#5d6773", "#d5dae0", "#fffffe"
SERIES = ("#0b62a8", "#c2410c", "#0f766e", "#7e22ce")  # one per recipe; white rings and bars' labels tell more apart
_THEME = {INK: "--ink", MUTED: "--muted", FAINT: "--faint", PAPER: "--paper"}
_THEME |= {colour: f"--series{i}" for i, colour in enumerate(SERIES)}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "normwise",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
}
WIDTH = 7.2  # inches
_SAID = "said:{}:{}"  # the id of what is drawn, until it is written: its cell, and what it says


class Drawn(NamedTuple):
    """A figure as SVG for the page, with its files."""

    name: str
    svg: str
    files: tuple[Path, ...]


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style; matplotlib's settings are as before afterwards."""
    import warnings

    from matplotlib import rc_context

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # a name the font cannot write
        yield


def new(height: float) -> Any:
    """An empty figure of the report's width, on a canvas of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bare(axes: Any, *, grid: str) -> None:
    """Leave of the axes one line and a faint grid."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis=grid, color=FAINT, linewidth=0.6)


def in_percent(axis: Any) -> None:
    """Label an axis that counts in percent."""
    axis.set_major_formatter(lambda value, _: f"{value:.0f}%")


def mark(axes: Any, x: float, y: float, text: str, of: int | str = "") -> None:
    """Let a point say its values: on hover in an SVG, on focus too in a page. `of` is the number of the cell that it belongs to."""
    if math.isfinite(y):
        axes.plot([x], [y], "o", markersize=10, alpha=0, gid=_SAID.format(of, text), zorder=5)


@contextmanager
def belonging(axes: Any, cell: int, text: str = "", row: float | None = None) -> Iterator[None]:
    """What is drawn inside belongs to a cell, so that a page can hide it; the whole `row`, if there is one, tells its values."""
    before = set(axes.get_children())
    yield
    belong(cell, set(axes.get_children()) - before)
    if row is not None:
        axes.axhspan(row - 0.5, row + 0.5, alpha=0, gid=_SAID.format(cell, text), zorder=5)


def belong(cell: int, artists: Iterable[Any]) -> None:
    """Let what has no mark of its own belong to a cell."""
    for artist in artists:
        if artist.get_gid() is None:
            artist.set_gid(_SAID.format(cell, ""))


def short(name: str, most: int = 44) -> str:
    """Cut a name that would leave no room for the figure."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def save(name: str, figure: Any, out: Path) -> Drawn:
    """Write the figure's files, the same bytes for the same figure, and return it for the page."""
    files = []
    for kind, options in (("png", {"dpi": 200}), ("svg", {"metadata": {"Date": None}})):
        held = _bytes(figure, format=kind, facecolor="white", **options)
        files.append(write(out / "figures" / f"{name}.{kind}", _with_titles(held) if kind == "svg" else held))
    svg = _with_titles(_bytes(figure, format="svg", transparent=True, metadata={"Date": None}))
    return Drawn(name, _for_page(name, svg), tuple(files))


def _bytes(figure: Any, **options: Any) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, **options)
    return held.getvalue()


def _with_titles(svg: bytes) -> str:
    """Let marks say their values as titles, and carry the numbers of their cells."""

    def said(match: re.Match[str]) -> str:
        of = f' data-of="{match[1]}"' if match[1] else ""
        return f'<g class="said"{of}><title>{match[2]}</title>' if match[2] else f"<g{of}>"

    marks = _SAID.format("([^:]*)", '([^"]*)')
    return re.sub(f'<g id="{marks}">', said, svg.decode())


def _for_page(name: str, svg: str) -> str:
    """Fit an SVG into the page: no prolog, no style for all, ids of its own, the page's colours and font."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.S)
    svg = re.sub(r"font: (?:[a-z]+ )*(\d{3} )?([\d.]+px) [^;\"]*", _font, svg)
    svg = re.sub(r"(\bid=\"|href=\"#|url\(#)", rf"\1{name}-", svg)
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def _font(match: re.Match[str]) -> str:
    return f"font-size: {match[2]}" + (f"; font-weight: {match[1].strip()}" if match[1] else "")
