"""The frame of every page: one HTML file that needs nothing else, works offline, in light and dark."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from .words import capital

_HERE = Path(__file__).parent


def rendered(template: str, **values: Any) -> str:
    """Render a template of this folder; text from files and names is escaped. The template extends `frame.html`.

    Raises ValueError for a record that lacks what the page shows.
    """
    from jinja2 import UndefinedError
    from markupsafe import Markup

    style, script = (Markup((_HERE / name).read_text()) for name in ("page.css", "page.js"))
    try:
        return str(_pages().get_template(template).render(style=style, script=script, **values))
    except UndefinedError as error:
        raise ValueError(f"the record is incomplete: {error}") from None


@cache
def _pages() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    pages.filters["capital"] = capital
    return pages
