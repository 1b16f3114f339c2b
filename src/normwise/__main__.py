"""The command `normwise`: answers --help and --version from a static table, before anything heavy is imported."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from . import __version__

VERBS = {
    "bench": "train a grid of norms and recipes, attack every network, and write a report",
    "train": "train one network, and evaluate it under attack",
    "evaluate": "evaluate any network under attack",
    "attack": "make adversarial images of a network, and keep them",
    "audit": "test whether a network's robustness is real; one verdict with reasons",
    "improve": "try ways to make your network more robust, choose one, and say what it costs",
    "diagnose": "show where networks drift, which layer flips the decision, and how smooth they are",
    "shifts": "measure accuracy under 15 corruptions, and how much of it test-time BatchNorm adaptation recovers",
    "selftest": "test an attack where the right result is known, on your network or on a small one",
    "reproduce": "test the claims of the papers robustnorm, nofrost, fragile-features and abnn",
    "push": "share a trained network on the Hugging Face Hub: weights, settings, results, a card; no local paths",
    "pull": "fetch a shared network into a folder",
    "export": "write a network as a program of torch.export or as ONNX, compared with the original",
    "list": "list the norms, attacks, threat models, recipes, models and data sets",
    "report": "write the report of finished runs again, or of several together",
    "status": "show how far a run is, from its folder: done, under way, left, and for how long",
}

HELP = """normwise {version}: does another normalization layer really make a network more robust to adversarial images?

usage: normwise VERB [--option VALUE ...]

{verbs}

normwise VERB --help shows a verb's options. Start with: normwise bench --out runs/bench
"""


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit status.

    0; 1 where a self-test or a cell of a bench failed; 2 for bad input (one line on stderr); 130 after Ctrl-C.
    """
    status = 0
    try:
        try:
            status = _answered(sys.argv[1:] if words is None else words)
        except SystemExit as stop:  # after --help and --print_config
            status = int(stop.code or 0)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        _let_go()
    except OSError as error:  # what was said cannot be written
        print(f"normwise: the output: {error.strerror or error}; check the free space", file=sys.stderr)
        _let_go()
        status = 2
    except KeyboardInterrupt:  # while modules are imported
        print("normwise: stopped before anything started", file=sys.stderr)
        status = 130
    return status


def _let_go() -> None:
    """Write to nowhere from now on, so that nothing is left to be flushed into a closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _answered(words: list[str]) -> int:
    """Answer from the static table, or let the verb run."""
    if words and words[0] == "--version":
        print(f"normwise {__version__}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        print(HELP.format(version=__version__, verbs="\n".join(f"  {verb:10}{text}" for verb, text in VERBS.items())))
        return 0
    if words[0] not in VERBS:
        import difflib

        near = difflib.get_close_matches(words[0], VERBS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"normwise: no verb is named {words[0]!r}{hint} (known: {', '.join(VERBS)})", file=sys.stderr)
        return 2
    from .cli.commands import run

    return run(words[0], VERBS[words[0]], words[1:])


if __name__ == "__main__":
    sys.exit(main())
