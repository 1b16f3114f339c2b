"""Networks on the Hugging Face Hub: `hub:USER/NAME` is fetched within limits; a folder of known files is uploaded."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..utils.errors import one_line
from ..utils.extras import need
from ..utils.run import RESULT
from ..utils.run_folder import CONFIG
from .checkpoints import CARD, WEIGHTS

PREFIX = "hub:"
AUDIT, README = "audit.json", "README.md"
MIB = 2**20
LIMITS = {WEIGHTS: 16384 * MIB, CARD: MIB, CONFIG: MIB, RESULT: 64 * MIB, AUDIT: 64 * MIB, README: MIB}  # in bytes
NEEDED = (WEIGHTS, CARD)


def located(spec: str) -> Path:
    """Where the network of this name lies: the folder of `hub:USER/NAME`, fetched if needed; any other name as it is."""
    return fetched(spec.removeprefix(PREFIX)) if spec.startswith(PREFIX) else Path(spec)


@functools.cache
def fetched(name: str) -> Path:
    """Fetch `USER/NAME` or `USER/NAME@REVISION` into the hub's own cache; returns the folder, which is called after its commit.

    Only the files of `LIMITS` are fetched, and none if one is larger than its limit. A process asks once for each name, so
    that all it does is about one commit. Raises ValueError for a repository that cannot be reached or holds no network of
    normwise.
    """
    repository, _, revision = name.partition("@")
    check_name(repository)
    with _asking(repository) as api:
        held = api.model_info(repository, revision=revision or None, files_metadata=True)
    sizes = {file.rfilename: file.size for file in held.siblings or ()}
    _check_sizes(repository, sizes)
    with _asking(repository) as api:
        places = [api.hf_hub_download(repository, file, revision=held.sha) for file in LIMITS if file in sizes]
    return Path(places[0]).parent


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Upload the files of a folder in one commit, to a repository that is made if needed; returns its address.

    A known file that the folder lacks is deleted there: an earlier audit is none of these weights. Raises ValueError for a
    repository that cannot be written, holds other files, or is public if it is to be private.
    """
    check_name(repository)
    with _asking(repository) as api:
        address = str(api.create_repo(repository, private=private, exist_ok=True))
        held = api.model_info(repository)
    there = {file.rfilename for file in held.siblings or ()} - {".gitattributes"}
    if others := sorted(there - LIMITS.keys()):
        raise ValueError(f"{repository} holds other files ({', '.join(others[:3])}); give a new name, or delete them there")
    if private and not held.private:
        raise ValueError(f"{repository} is public already; make it private on the hub, or give a new name")
    hub = huggingface()[0]
    files = sorted(path.name for path in folder.iterdir())
    changes = [hub.CommitOperationAdd(file, folder / file) for file in files]
    changes += [hub.CommitOperationDelete(file) for file in sorted(there.difference(files))]
    with _asking(repository) as api:
        api.create_commit(repository, changes, commit_message="Network, settings and results from normwise")
    fetched.cache_clear()
    return address


def huggingface() -> list[Any]:
    """The hub's own library and its errors, without telemetry if nobody asked for it. Raises ValueError if it is not installed."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when it is imported
    return need("hub", "huggingface_hub", "huggingface_hub.errors")


def check_name(repository: str) -> None:
    """Refuse what is no name of a repository. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repository, re.ASCII):
        raise ValueError(f"{repository!r} is no repository of the hub; write USER/NAME, such as ada/digits-resnet8")


def _check_sizes(repository: str, sizes: Mapping[str, int | None]) -> None:
    if missing := [file for file in NEEDED if file not in sizes]:
        raise ValueError(f"{repository} holds no {' and no '.join(missing)}; name a repository that normwise push filled")
    for file, limit in LIMITS.items():
        size = sizes.get(file, 0)
        if size is None or size > limit:
            described = "of unknown size" if size is None else f"of {size / MIB:,.0f} MiB"
            raise ValueError(
                f"{file} of {repository} is {described}, and at most {limit // MIB:,} MiB are fetched; fetch it by hand"
            )


@contextmanager
def _asking(repository: str) -> Iterator[Any]:
    """Give the hub's interface; turns what goes wrong there into a ValueError of one line."""
    hub, errors = huggingface()
    try:
        yield hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    except Exception as error:
        raise ValueError(_problem(repository, error, errors)) from None


def _problem(repository: str, error: Exception, errors: Any) -> str:
    """Say in one line why the hub did not do what it was asked."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no such revision; give a branch, a tag or a commit after @"
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return f"the hub gives no permission for {repository}; ask its owner, or run hf auth login as somebody who has it"
    if isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        return f"the hub knows no {repository} that you may see; check the name, or run hf auth login"
    if status is not None:
        return f"the hub refused {repository} (status {status}); try again later"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{repository} is on the hub, and HF_HUB_OFFLINE forbids to ask there; give a folder that was pulled before"
    why = one_line(error)[:120]
    return f"{repository}: the hub cannot be reached, or answers nonsense ({why}); check the network, or give a folder that was pulled"
