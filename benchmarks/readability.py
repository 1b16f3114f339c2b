"""How easy README and docs read: Flesch reading ease, 206.835 - 1.015 words/sentences - 84.6 syllables/words (Flesch 1948).

python benchmarks/readability.py [REVISION ...]   # of each page as it is, and as it was at these commits

Syllables are counted by groups of vowels, a last silent e left out; code, tables, headings, pictures and addresses do not count.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page, without its code, tables, drawings and addresses."""
    text = BLOCK.sub("", text)
    text = re.sub(r"^\|[^\n]*|^#[^\n]*|<svg.*?</svg>|<!--.*?-->|^!\[[^\]]*\]\([^)]*\)", "", text, flags=re.M | re.S)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", text))
    for part in re.split(r"\n\s*\n|^\s*(?:-|\d\.) ", text, flags=re.M):
        yield from filter(None, re.split(r"(?<=[.!?])\s+", " ".join(part.split())))


def syllables(word: str) -> int:
    """Groups of vowels; a silent e at the end does not count."""
    return max(1, len(re.findall(r"[aeiouy]+", re.sub(r"(?<=[^aeiouyl])e$", "", word.lower()))))


def ease(text: str) -> tuple[float, int, int]:
    """Flesch reading ease of a page, its words, and those of its longest sentence."""
    counted = [words for one in sentences(text) if (words := re.findall(r"[A-Za-z]+(?:['-][A-Za-z]+)*", one))]
    words = [word for each in counted for word in each]
    each = len(words) / len(counted)
    return 206.835 - 1.015 * each - 84.6 * sum(map(syllables, words)) / len(words), len(words), max(map(len, counted))


def pages(revision: str = "") -> Mapping[str, str]:
    """README, start and how-tos, or, before these were, all pages of docs, as they are or were at a commit."""
    if not revision:
        paths = [ROOT / "README.md", ROOT / "docs/start.md", *sorted((ROOT / "docs/howto").glob("*.md"))]
        return {str(path.relative_to(ROOT)): path.read_text() for path in paths}

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True, text=True).stdout

    names = git("ls-tree", "-r", "--name-only", revision, "README.md", "docs").split()
    guides = [name for name in names if re.search(r"^README|^docs/start|^docs/howto/.*md$", name)]
    guides = guides if len(guides) > 1 else [name for name in names if re.search(r"^[^_]*\.md$", name)]
    return {name: text for name in guides if len((text := git("show", f"{revision}:{name}")).split()) > 50}


if __name__ == "__main__":
    for revision in (*sys.argv[1:], ""):
        found = {name: ease(text) for name, text in pages(revision).items()}
        total = sum(words for _, words, _ in found.values())
        print(
            f"{revision or 'now'}: {sum(value * words for value, words, _ in found.values()) / total:.1f} over {total} words"
        )
        for name, (value, words, longest) in found.items():
            print(f"  {value:5.1f}  {words:5d} words, longest sentence {longest:3d}  {name}")
