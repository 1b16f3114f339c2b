"""A bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from ..types import Report

QUIET = 30  # seconds without a line, at most, where there is no bar


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """Show a bar with the time left on a terminal; elsewhere a line whenever something is finished, and every half minute."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with bar(console) as shown:
        task, said = shown.add_task(what, total=None), time.monotonic()

        def report(text: str, done: int, total: int) -> None:
            nonlocal said
            finished = ": " in text
            if finished or (shown.disable and time.monotonic() - said > QUIET):
                console.print(text if finished else f"{what}: {text} ({done}/{total})", markup=False)
                said = time.monotonic()
            description = what if finished else f"{what}: {text}"
            shown.update(task, completed=done, total=total or None, description=description)

        yield report


def bar(console: Any) -> Any:
    """The bar of one task, on one line of the console: what is done, how much of it, and how long it takes still."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column

    class Time(ProgressColumn):
        """The time left where it is known, else the time that has passed."""

        def render(self, task: Any) -> Any:
            from rich.text import Text

            left = None if task.finished else task.time_remaining
            known, word = (task.elapsed or 0, "so far") if left is None else (left, "left")
            return Text(f"{timedelta(seconds=int(known))} {word}", style="progress.remaining")

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=20, table_column=Column(width=20)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Time(table_column=Column(no_wrap=True)),
    )
    return Progress(*columns, console=console, transient=True, expand=True, disable=not console.is_terminal)
