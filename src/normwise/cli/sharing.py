"""Verbs that share a network: on the hub, and as a program for other libraries."""

from __future__ import annotations

from collections.abc import Sequence

from ..experiments.export import EXPORTED, Export, run_export
from ..experiments.sharing import Pull, Push, pull, push
from . import defaults
from .parser import Verb, parse


def push_run(description: str, words: Sequence[str]) -> None:
    """`normwise push`: share a run."""
    verb = Verb("push", description, "", "RUN USER/NAME", 2, 2)
    settings, _, _ = parse(
        verb, Push, words, lambda operands, given: ({}, dict(zip(("run", "repository"), operands, strict=False)))
    )
    print(f"pushed: {push(settings)}\nto load: nw.load('hub:{settings.repository}')")


def pull_network(description: str, words: Sequence[str]) -> None:
    """`normwise pull`: fetch a network into a folder."""
    verb = Verb("pull", description, "runs/pull", "USER/NAME[@REVISION]", 1, 1)
    settings, _, out = parse(
        verb, Pull, words, lambda operands, given: ({}, {"repository": operands[0]} if operands else {})
    )
    for what, text in pull(settings, out).items():
        print(f"{what}: {text}")
    print(f"network: {out}")


def export_network(description: str, words: Sequence[str]) -> None:
    """`normwise export`: write a network as a program."""
    verb = Verb("export", description, "runs/export/model", "MODEL", 0, 1, "FILE")
    settings, _, out = parse(verb, Export, words, defaults.for_export)
    record = run_export(settings, out)
    found = f"on {record['rows']} test images, {record['largest_difference']:.2g} of the largest logit apart at most"
    print(f"parity: {found}, {record['other_decisions']} other decisions")
    print(f"program: {record['file']}\nrecord: {record['file']}{EXPORTED}")
