"""The predictor: asks a network without lasting effect, and refuses what cannot be evaluated."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..losses import margin
from ..seeding import generator
from ..types import Batch, Images, Labels, Logits, Mode
from ..utils.batches import batch_problem, input_mismatch
from ..utils.forward import NoLogits, in_parts, in_time, logits_of
from ..utils.model_state import device_of, running, untouched
from .coupling import Coupling

DRAWS = 11  # answers of a random model, of which the most frequent one counts


class _Answer(NamedTuple):
    logits: Tensor


class Predictor:
    """Asks the model, without lasting effect and without a graph; counts images.

    `draws`: a model with noise of its own is asked so many times, and its most frequent answer counts. `divisible`: rows are
    independent, so that a batch too large for memory may go through the model in parts. `targeted`: attackers are after the
    class y, not after any other.
    """

    def __init__(self, model: nn.Module, seed: int, *, targeted: bool = False) -> None:
        self.model, self.device, self.targeted = model, device_of(model), targeted
        self.seed, self.draws, self.divisible = seed, 1, False
        self.forwards = self.backwards = 0
        self.classes: int | None = None

    def adjust(self, coupling: Coupling) -> None:
        """Ask as often as the model's own draws need, and in parts where rows are independent."""
        self.draws, self.divisible = DRAWS if coupling.random else 1, not coupling.coupled

    def logits(self, x: Images, draw: int = 0) -> Logits:
        """The model's logits (b, classes), float32 at least. Raises ValueError where it answers anything else."""
        in_time()
        self.forwards += len(x)
        with torch.no_grad(), untouched(self.model, generator(self.seed, "judge", *([draw] if draw > 0 else []))):
            x = x.to(self.device)
            ask = in_parts if self.divisible else lambda model, work, x: work(x)
            logits = ask(self.model, lambda part: _Answer(logits_of(self.model, part)), x).logits
            return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def answers(self, x: Images, y: Labels) -> tuple[Tensor, Tensor]:
        """The class of each row, and its margin (the largest other logit less that of y; turned for a class to reach), mean over draws.

        Raises ValueError for logits that are not finite.
        """
        votes, margins = torch.zeros(0), torch.zeros(0)
        for draw in range(self.draws):
            logits = self.logits(x, draw)
            if not torch.isfinite(logits).all():
                bad = int((~torch.isfinite(logits).all(1)).sum())
                raise ValueError(
                    f"the logits of {bad} of {len(x)} rows are not finite; a verdict needs numbers: find the layer that overflows"
                )
            vote, found = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]), margin(logits, y.to(logits.device))
            votes, margins = (votes + vote, margins + found) if draw else (vote, found)
        return votes.argmax(1), (-margins if self.targeted else margins) / self.draws

    def reached(self, answers: Tensor, y: Labels) -> Tensor:
        """Where the attackers' goal is reached: another class than the label y, or the class y."""
        return (answers == y) == self.targeted


def check_images(batch: Batch, classes: int | None = None) -> None:
    """Refuse images and labels that cannot be, for a model of so many classes. Raises ValueError."""
    y, problem = batch.y, batch_problem(batch)
    if not problem and classes and (y.min() < 0 or y.max() >= classes):
        problem = (
            f"labels from {int(y.min())} to {int(y.max())}; expected 0 to {classes - 1}, as the model has {classes} classes"
        )
    if problem:
        raise ValueError(f"cannot evaluate: got {problem}")


def check_network(model: nn.Module, batch: Batch, mode: Mode = "eval") -> int:
    """Refuse images, labels and a network that do not go together; returns its number of classes. Raises ValueError."""
    with running(model, mode):
        check_images(batch)
        classes = classes_of(Predictor(model, 0), batch.x)
        check_images(batch, classes)
    return classes


def check_weights(model: nn.Module) -> None:
    """Refuse weights or statistics made under `torch.inference_mode`, through which no gradient passes. Raises ValueError."""
    if torch.is_inference_mode_enabled():  # where every copy is made so
        return
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_inference():
            raise ValueError(
                f"{name} was made under torch.inference_mode(), and a gradient needs weights that were not; "
                "build, load or clone the model outside inference_mode"
            )


def classes_of(predictor: Predictor, x: Images, called: str = "model") -> int:
    """Ask the model once, and count its classes. Raises ValueError for a model that does not answer images with logits."""
    try:
        return predictor.logits(x).shape[1]
    except (TimeoutError, NoLogits):
        raise
    except Exception as error:
        raise ValueError(f"the {called} {input_mismatch(predictor.model, x, error)}") from None
