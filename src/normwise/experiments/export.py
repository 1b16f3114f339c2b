"""A network as a program of its own: torch.export or ONNX, compared with the network on test images."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..config import choice
from ..data import DATA, Digits, find
from ..evaluation.coupling import measure_coupling
from ..evaluation.predictor import check_network
from ..models.loading import check_named, load, report_notes
from ..norms import reads, sites
from ..records import provenance, to_json, write
from ..registry import plain
from ..types import Data, Report, silent
from ..utils.errors import one_line
from ..utils.extras import need
from ..utils.fidelity import logit_distance
from ..utils.forward import logits_of
from ..utils.model_state import moved
from ..utils.per_row import first_rows

EXPORTED = ".json"  # after the program's own name: what was compared
SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
ROUNDING = 1000  # times the precision of a number: what another order of sums may change, relative to the largest logit


@dataclass(frozen=True, kw_only=True)
class Export:
    """Which network is written as a program.

    Options
        model    a run folder, a weights file beside its model.json, hub:USER/NAME, or package.module:function
        weights  a weights file for the function
        format   "torch": a program of torch.export (.pt2); "onnx": an ONNX graph (.onnx; needs the extra onnx)
        data     its test images are given to both, the network and the program
        rows     how many
    """

    model: str = ""
    weights: str = ""
    format: Literal["torch", "onnx"] = "torch"
    data: Data = choice(DATA, Digits(), find)
    rows: int = 64

    def __post_init__(self) -> None:
        check_named(self.model, "export")
        if self.rows < 4:
            raise ValueError(f"rows is {self.rows}, and batches of several sizes are compared; give a whole number >= 4")


def run_export(settings: Export, file: Path, report: Report = silent) -> dict[str, Any]:
    """Write the program, and a record of the comparison beside it; returns the record. The batch size of the program is free.

    `file` gets the suffix of the format if it has none. Raises ValueError for a network whose images are coupled or whose
    answers are random or change it, for one that cannot be written in this format, and for a program that answers otherwise.
    """
    suffix = SUFFIXES[settings.format]
    if file.suffix not in ("", suffix):
        raise ValueError(
            f"{file} ends in {file.suffix}, and a program of format {settings.format} in {suffix}; change one of them"
        )
    file = file.with_suffix(suffix)
    loaded = load(settings.model, settings.weights)
    said = report_notes([loaded], report)
    model = moved(loaded.model, torch.device("cpu"))
    batches = first_rows(settings.data.test(batch_size=max(settings.rows // 2, 2)), settings.rows)
    x = torch.cat([batch.x for batch in batches])
    if len(x) < 2:
        raise ValueError(
            f"export compares answers to two images or more; {settings.data.name} has {len(x)} to test; give more"
        )
    check_network(model, batches[0])
    _check_alone(settings.model, model, [batch.x for batch in batches])
    content = {"torch": _torch, "onnx": _onnx}[settings.format](settings.model, model, x[:2])
    answers = {"torch": _ask_torch, "onnx": _ask_onnx}[settings.format](content, [x[:1], x[1:4], x])
    found = _compared(model, [x[:1], x[1:4], x], answers)
    if found["largest_difference"] > found["tolerance"]:
        raise ValueError(
            f"the program of {settings.model} answers otherwise: logits differ by {found['largest_difference']:.2g} of the largest, "
            f"and rounding explains {found['tolerance']:.2g}; nothing was written"
        )
    write(file, content)
    record = {"file": str(file), "rows": len(x), **found, "settings": plain(settings), "provenance": provenance() | said}
    write(file.with_name(file.name + EXPORTED), to_json(record))
    return record


def _check_alone(name: str, model: nn.Module, images: list[Tensor]) -> None:
    """Refuse a network of whose answer one image alone does not decide. Raises ValueError."""
    found = measure_coupling(model, images)
    layers = [path for path in sites(model) if "batch" in (reads(model.get_submodule(path)) or ())]
    if found.coupled:
        which = f"{len(layers)} norms read batch statistics ({layers[0]}, ...)" if layers else "its rows are not independent"
        raise ValueError(
            f"{name} answers to an image by the other images of its batch: {which}; a program of it would have no answer of its own"
        )
    if found.random or found.stateful:
        why = "is random" if found.random else "changes the network"
        raise ValueError(
            f"an answer of {name} {why}, so that no program can be compared with it; export a network whose does not"
        )


def _torch(name: str, model: nn.Module, x: Tensor) -> bytes:
    """The program of torch.export for images x (b, c, ...), with any b."""
    try:
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    except Exception as error:
        raise _refused(name, "torch.export", error) from None
    return buffer.getvalue()


def _onnx(name: str, model: nn.Module, x: Tensor) -> bytes:
    """The ONNX graph for images x (b, c, ...), with any b."""
    need("onnx", "onnx", "onnxscript", "onnxruntime")
    try:
        with warnings.catch_warnings(action="ignore"):  # of the exporter, about itself
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program: Any = torch.onnx.export(
                model,
                (x,),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
        return bytes(program.model_proto.SerializeToString())
    except Exception as error:
        raise _refused(name, "ONNX", error) from None


def _refused(name: str, what: str, error: Exception) -> ValueError:
    return ValueError(f"{what} cannot write {name} with a free batch size ({one_line(error)[:200]}); try the other format")


def _ask_torch(content: bytes, batches: list[Tensor]) -> list[Tensor]:
    program = torch.export.load(io.BytesIO(content)).module()
    with torch.no_grad():
        return [logits_of(program, x) for x in batches]


def _ask_onnx(content: bytes, batches: list[Tensor]) -> list[Tensor]:
    (runtime,) = need("onnx", "onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(session.run(None, {"images": x.numpy()})[0]) for x in batches]


def _compared(model: nn.Module, batches: list[Tensor], answers: list[Tensor]) -> dict[str, Any]:
    """How far the logits (b, classes) of a program are from the network's, as `utils.fidelity.logit_distance` measures it, over all batches."""
    with torch.no_grad():
        own = torch.cat([logits_of(model, x) for x in batches])
    other = torch.cat(answers).to(own)
    return {
        "largest_difference": float(logit_distance(other, own).amax()),
        "tolerance": min(ROUNDING * torch.finfo(own.dtype).eps, 0.05),
        "other_decisions": int((own.argmax(1) != other.argmax(1)).sum()),
        "batch_sizes": [len(x) for x in batches],
    }
