"""Data sets in known files: look for them, say what is missing, download them if asked to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..limits import DATA, content
from ..utils.errors import one_line
from .tensors import TensorData


@contextmanager
def reading(file: Path, kind: str, most: int = DATA) -> Iterator[bytes]:
    """Give the content of a file, plain or .gz, of at most so many bytes. `kind` is what the file should be, in words.

    Turns whatever goes wrong inside into a ValueError of one line: the file, what it should be, what it is, what to do.
    """
    path = stored(file) or file
    try:
        yield content(path, most)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path} must be {kind}; got {one_line(error)}; replace it, or point at another place") from None


@dataclass(frozen=True, kw_only=True)
class StoredData(TensorData):
    """A public data set in its own files.

    Options
        root       the folder of the files or its parent; empty: $NORMWISE_DATA, then ./data
        download   download the files if they are missing
    """

    layouts: ClassVar[Mapping[str, tuple[str, ...]]]  # folder -> the files in it, each plain or with .gz
    urls: ClassVar[Mapping[str, str]]  # address -> checksum; one archive of the first folder, or its files

    root: str = ""
    download: bool = False

    @property
    def source(self) -> str:
        """What error messages call this data."""
        return f"{self.name} in {self.folder}"

    @property
    def folder(self) -> Path:
        """The folder that holds the files; fetched if they are missing and `download` is set."""
        found = next((folder for folder in self._candidates() if self.layout(folder)), None)
        if found is not None:
            return found
        target = self._places()[0]
        first = next(iter(self.layouts))
        target = target if target.name == first else target / first
        if not self.download:
            raise ValueError(self._missing(target))
        from .download import fetch, fetch_archive

        for url, checksum in self.urls.items():
            file = url.rsplit("/", 1)[-1]
            if file.endswith(".tar.gz"):
                fetch_archive(url, checksum, target)
            elif not (target / file.removesuffix(".gz")).exists():
                fetch(url, checksum, target / file)
        return target

    @classmethod
    def layout(cls, folder: Path) -> str | None:
        """Name the layout whose files are all in the folder."""
        return next((name for name, files in cls.layouts.items() if all(stored(folder / file) for file in files)), None)

    @classmethod
    def recognised(cls, folder: Path) -> bool:
        """Say whether the folder, or one inside it, holds this data set."""
        return any(cls.layout(place) for place in (folder, *(folder / name for name in cls.layouts)))

    @classmethod
    def begun(cls, folder: Path) -> bool:
        """Say whether the folder, or one inside it, holds more than one of this data set's files, but not all."""
        places = [(folder, files) for files in cls.layouts.values()]
        places += [(folder / name, files) for name, files in cls.layouts.items()]
        return any(1 < sum(bool(stored(place / file)) for file in files) < len(files) for place, files in places)

    def _places(self) -> list[Path]:
        places = [self.root] if self.root else [os.environ.get("NORMWISE_DATA", ""), "data"]
        return [Path(place).expanduser() for place in places if place]

    def _candidates(self) -> list[Path]:
        inside = [place / name for place in self._places() for name in self.layouts]
        # Unasked, only a folder of the right name will do: Fashion-MNIST has the file names of MNIST.
        return [*inside, *self._places()] if self.root else inside

    def _missing(self, target: Path) -> str:
        needs = " or ".join(dict.fromkeys(", ".join(files) for files in self.layouts.values()))
        looked = ", ".join(str(folder) for folder in self._candidates())
        lacks = [
            f"{folder} lacks {', '.join(absent)}"
            for folder in self._candidates()
            for files in self.layouts.values()
            if 0 < len(absent := [file for file in files if not stored(folder / file)]) < len(files)
        ]
        origin = dict.fromkeys(url if url.endswith(".tar.gz") else url.rsplit("/", 1)[0] for url in self.urls)
        return (
            f"{self.name} needs {needs}; looked in {looked}: {'; '.join(lacks[:1]) or 'not there'}; add "
            f"--download (download=True), put the files of {', '.join(origin)} into {target}, or set root or $NORMWISE_DATA"
        )


def stored(file: Path) -> Path | None:
    """Return the file, or its .gz, whichever is there."""
    return next((path for path in (file, file.with_name(f"{file.name}.gz")) if path.is_file()), None)
