"""A bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]
QUIET = 30  # seconds without a word, at most, where there is no bar to look at


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """Show a bar with the time left on a terminal; elsewhere a line whenever something is finished, and every half minute."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task, told = bar.add_task(what, total=None), time.monotonic()

        def report(text: str, done: int, total: int) -> None:
            nonlocal told
            finished = ": " in text
            if finished or (bar.disable and time.monotonic() - told > QUIET):
                console.print(text if finished else f"{what}: {text} ({done}/{total})", markup=False)
                told = time.monotonic()
            bar.update(task, completed=done, total=total, description=what if finished else f"{what}: {text}")

        yield report
