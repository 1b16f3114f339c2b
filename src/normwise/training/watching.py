"""TensorBoard beside the log: scalars of every epoch, and how far running statistics moved in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..utils.extras import need

EVENTS = "tensorboard"  # the folder of the events, in that of the training
EPS = 1e-5  # added to variances, as in the diagnosis `drift`, and to ranges
_CENTRES, _VARIANCES = ("running_mean", "running_median"), ("running_var", "running_deviation")
_TAGS = {"loss": "loss/train", "train_accuracy": "accuracy/train", "lr": "learning rate"}


@contextmanager
def watched(model: nn.Module, folder: Path | None, epoch: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give what writes the log line of an epoch, and the drift of the model in it, as events for TensorBoard.

    Nothing is written if `folder` is None. `epoch` is the last finished one: later events of a stopped run are taken back.
    Raises ValueError if TensorBoard is not installed.
    """
    if folder is None:
        yield lambda line: None
        return
    need("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    before = statistics(model)
    with SummaryWriter(str(folder / EVENTS), purge_step=epoch + 1) as writer:

        def watch(line: Mapping[str, Any]) -> None:
            nonlocal before
            now = statistics(model)
            scalars = {_tag(name): value for name, value in line.items() if name not in ("epoch", "seconds")}
            scalars |= {f"drift/{path}": value for path, value in drift(before, now).items()}
            for tag, value in scalars.items():
                writer.add_scalar(tag, value, line["epoch"])
            writer.flush()
            before = now

        yield watch


def _tag(name: str) -> str:
    return _TAGS.get(name) or f"accuracy/{name}"


def statistics(model: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Running centre and spread (channels,) of each layer that tracks both, by its path; copies on the CPU.

    The spread is a deviation; of a layer that tracks its range instead, the range.
    """
    found = {}
    for path, module in model.named_modules():
        held = {name: buffer.detach().double().cpu() for name, buffer in module.named_buffers(recurse=False)}
        centres = [held[name].clone() for name in _CENTRES if name in held]
        spreads = [(held[name] + EPS).sqrt() for name in _VARIANCES if name in held]
        spreads += [held["running_range"] + EPS] if "running_range" in held else []
        if centres and spreads:
            found[path] = centres[0], spreads[0]
    return found


def drift(before: Mapping[str, tuple[Tensor, Tensor]], now: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """How far the running centre of each layer moved, in its spread of before: the mean over channels of |m - m0| / s0."""
    return {path: float(((now[path][0] - m0).abs() / s0).mean()) for path, (m0, s0) in before.items() if path in now}
