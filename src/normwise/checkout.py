"""Which code runs, and on which processor."""

from __future__ import annotations

import functools
import platform
import shutil
import subprocess
from pathlib import Path


@functools.cache
def commit(folder: Path = Path(__file__).parent) -> str | None:
    """The commit that the code in a folder is of, "-dirty" after it where files were changed since.

    None where it is no checkout's own, or without git. It stays what it was when first asked: asked when a command begins,
    it is what runs, whatever is committed meanwhile.
    """

    def git(*words: str) -> str:
        asked = ["git", "-C", str(folder), *words, "--", "."]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()

    last = git("log", "-1", "--format=%H") if shutil.which("git") else ""
    return last + ("-dirty" if git("status", "--porcelain") else "") if last else None


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
