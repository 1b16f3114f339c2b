"""Fetch a file whole and right, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path, PurePosixPath

from ..utils.errors import one_line
from .array_checks import need


def fetch(url: str, checksum: str, destination: Path) -> Path:
    """Download `url` to `destination`, unless that is there; `checksum` is "md5:..." or "sha256:...".

    Writes into a neighbour that takes the name only when it is complete and its checksum is right.
    Raises ValueError with the address and where to put the file by hand.
    """
    if destination.exists():
        return destination
    neighbour = destination.with_name(f".{destination.name}.{os.getpid()}")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        _stream(url, checksum, neighbour)
        neighbour.replace(destination)
    except (OSError, HTTPException) as error:
        raise _failed(url, error, f"put the file at {destination}") from None
    finally:
        neighbour.unlink(missing_ok=True)
    return destination


def fetch_archive(url: str, checksum: str, folder: Path) -> Path:
    """Download a .tar.gz or .zip that holds a folder named like `folder`, and put it there whole: its files and nothing else.

    Raises as `fetch`.
    """
    empty = not folder.exists() or not any(folder.iterdir())
    need(empty, f"{folder} must be free for the download", "a folder that is not complete", "move it away")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            archive, unpacked = Path(temporary) / url.rsplit("/", 1)[-1], Path(temporary) / "unpacked"
            _stream(url, checksum, archive)
            if archive.suffix == ".zip":  # shutil itself keeps its members inside
                shutil.unpack_archive(archive, unpacked)
            else:
                _unpack(archive, unpacked, folder.name)
            (unpacked / folder.name).rename(folder)
    except (OSError, HTTPException, EOFError, zlib.error, tarfile.TarError) as error:
        raise _failed(url, error, f"unpack the archive by hand to {folder}") from None
    return folder


def _unpack(archive: Path, place: Path, folder: str) -> None:
    """Write the regular files of one folder of a tar; Python knows the filter for that since 3.11.4 alone."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isfile() and path.parts[:1] == (folder,) and ".." not in path.parts:
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None  # it is a file
                with (place / path).open("wb") as file:
                    shutil.copyfileobj(content, file)


def _stream(url: str, checksum: str, path: Path) -> None:
    """Write what `url` gives to `path`. Raises OSError where it breaks off or is something else."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    request = urllib.request.Request(url, headers={"User-Agent": "normwise"})
    algorithm = checksum.partition(":")[0]
    digest, done = hashlib.new(algorithm, usedforsecurity=False), 0
    with (
        urllib.request.urlopen(request, timeout=30) as response,
        path.open("wb") as file,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        length = response.headers.get("Content-Length")
        task = progress.add_task(url.rsplit("/", 1)[-1], total=int(length) if length else None)
        while chunk := response.read(1 << 18):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress.update(task, completed=done)
    if length and done != int(length):
        raise OSError(f"a transfer that broke off after {done} of {length} bytes")
    found = f"{algorithm}:{digest.hexdigest()}"
    if found != checksum:
        raise OSError(f"a file with the checksum {found}, not {checksum}")


def _failed(url: str, error: Exception, advice: str) -> ValueError:
    return ValueError(f"{url} must be downloaded; got {one_line(error)}; try again, or {advice}")
