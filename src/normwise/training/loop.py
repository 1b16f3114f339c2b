"""The one training loop."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from .. import losses
from ..data.augment import check_flip, random_crop, random_flip
from ..models import checkpoints
from ..norms import AdaptiveNorm, StatNorm
from ..norms.surgery.trainable import materialized
from ..norms.surgery.unmapped import remarks
from ..records import Training, write
from ..registry import changed, kept
from ..seeding import derive, drawing, generator
from ..types import Batch, Data, Recipe, ThreatModel
from ..utils.batches import Rows
from ..utils.hashing import mark_of
from ..utils.layout import layout
from ..utils.model_state import device_of, digest, frozen, moved, running, set_mode
from . import schedule as scheduling
from .loaders import as_data
from .options import FitOptions
from .schedule import Schedule
from .validation import Validation, overfitted

STATE, LOG = "last.pt", "log.jsonl"


class Fitted(NamedTuple):
    """A trained model, in eval mode, and the record of its training."""

    model: nn.Module
    training: Training


class Diverged(ValueError):
    """The loss is no longer finite."""


def fit(
    model: nn.Module,
    data: Data | Rows,
    recipe: Recipe,
    threat: ThreatModel,
    schedule: Schedule,
    *,
    seed: int,
    options: FitOptions = FitOptions(),
) -> Fitted:
    """Train a copy of the model as the recipe says, on the model's device; the model given stays as it is.

    `data` is a data set, or only training images: a DataLoader, pairs (images, labels), or two tensors, pixels in [0, 1].
    Without validation images the last epoch is kept.

    The checkpoint is chosen on validation images (cut from the training set), never on test images. Recipes that train against
    an attack use accuracy under a short PGD, the others clean accuracy. The last checkpoint within a standard error of the
    best is taken, because smaller differences depend on the choice of the images (Breiman et al. 1984, Classification and
    Regression Trees, 3.4.3, choose so among trees).

    With `FitOptions(folder=...)` a stopped run resumes after its last finished epoch. It ends with the same weights as a run that
    was not stopped, if model, data and settings are the same; the device may be another.

    Raises ValueError for a loss that is not finite, naming epoch and batch, for settings the device cannot run, and for a folder
    that holds another training, naming what differs. Also if a process group is running and norms use the batch of each process
    separately (see `FitOptions.stats`), and for flips of data whose mirrored rows may have another class.
    """
    data = as_data(data)
    if dist.is_available() and dist.is_initialized() and options.stats != "per-rank":
        _check_synchronized(model)
    run = _Run(recipe.prepare(model), data, recipe, threat, schedule, seed, device_of(model), options)
    if options.folder:
        run.resume(options.folder)
    while run.state.epoch < schedule.epochs:
        line = run.epoch()
        if options.folder:
            run.save(options.folder, line)
        options.report(_sentence(line, schedule.epochs), run.state.epoch * run.steps, schedule.epochs * run.steps)
    return run.finish()


@dataclass
class _State:
    """The state of a run: saved after each epoch, read back to resume."""

    epoch: int = 0
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    best_epoch: int = 0
    overfitted_epoch: int = 0
    loss: float = 0.0  # the last epoch's
    top: float = 0.0  # the best validation accuracy so far
    best: dict[str, float] = field(default_factory=dict)  # scores of the chosen epoch
    weights: dict[str, Tensor] = field(default_factory=dict)  # of the chosen epoch


@dataclass
class _Run:
    """The parts of one training run."""

    model: nn.Module
    data: Data
    recipe: Recipe
    threat: ThreatModel
    schedule: Schedule
    seed: int
    device: torch.device
    options: FitOptions

    def __post_init__(self) -> None:
        schedule, device = self.schedule, self.device
        if schedule.flip:
            check_flip(self.data)
        self.layout = layout(self.model, device) if schedule.channels_last else torch.contiguous_format
        self.model = moved(moved(self.model, device), memory_format=self.layout)
        self.steps = self.data.train_batches(schedule.batch_size)
        self.optimizer = scheduling.optimizer(self.model, schedule)
        self.rates = scheduling.learning_rate(self.optimizer, schedule, schedule.epochs * self.steps)
        self.average = scheduling.average(self.model, schedule)
        self.scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16")
        rows = self.data.validation(batch_size=250) if schedule.validate_every else []
        self.validation = Validation(rows, self.recipe, self.threat, schedule, self.seed, device)
        self.state = _State()
        self.about = self._about() if self.options.folder else {}

    @property
    def current(self) -> nn.Module:
        """The model that would be used: the moving average where there is one."""
        return self.average.module if self.average else self.model

    def epoch(self) -> dict[str, Any]:
        """Train for one epoch, validate, keep the model if it is as good as the best; returns the log line."""
        started = time.perf_counter()
        line = {"epoch": self.state.epoch + 1, **self._train()}
        self.state.epoch += 1
        self.state.loss = line["loss"]
        aim = "robust" if self.recipe.robust else "clean"
        scores: dict[str, float] = {}
        if self.validation.batches and (
            self.state.epoch % self.schedule.validate_every == 0 or self.state.epoch == self.schedule.epochs
        ):
            scores, spent = self.validation.of(self.current)
            self.state.forwards += spent[0]
            self.state.backwards += spent[1]
            if overfitted(scores) and not self.state.overfitted_epoch:
                self.state.overfitted_epoch = self.state.epoch
            self.state.top = max(self.state.top, scores[aim])
        enough = self.state.top - (self.validation.error(self.state.top) if scores else 0.0)
        if not self.validation.batches or (scores and scores[aim] >= enough):
            self.state.best, self.state.best_epoch = scores, self.state.epoch
            self.state.weights = {name: value.detach().cpu().clone() for name, value in self.current.state_dict().items()}
        self.state.seconds += time.perf_counter() - started
        return line | {f"validation_{name}": value for name, value in scores.items()} | {"seconds": self.state.seconds}

    def _train(self) -> dict[str, float]:
        epoch, rng = self.state.epoch, generator(self.seed, "train", self.state.epoch)
        loss = right = seen = 0.0
        with running(self.model, "train"), drawing(derive(self.seed, "noise", epoch), [self.device]):
            for index, batch in enumerate(self.data.train(batch_size=self.schedule.batch_size, generator=rng)):
                x, y = self._prepare(batch, rng)
                with scheduling.autocast(self.schedule, self.device):
                    cost = self.recipe.loss(self.model, x, y, self.threat, generator=rng)
                if not torch.isfinite(cost.loss):
                    kept = f"the last good checkpoint is of epoch {epoch}; " if epoch and self.options.folder else ""
                    raise Diverged(
                        f"the loss became {cost.loss.item()} in epoch {epoch + 1}, batch {index + 1}; {kept}lower schedule.lr"
                    )
                self.optimizer.zero_grad(set_to_none=True)
                self.scaler.scale(cost.loss).backward()
                self.scaler.step(self.optimizer)
                self.scaler.update()
                self.rates.step()
                if self.average:
                    self.average.update_parameters(self.model)
                self.state.forwards += cost.forwards
                self.state.backwards += cost.backwards
                loss += cost.loss.item() * len(y)
                right += int(losses.correct(cost.logits, y).sum())
                seen += len(y)
                text = f"epoch {epoch + 1}/{self.schedule.epochs}, loss {loss / seen:.3f}"
                self.options.report(text, epoch * self.steps + index + 1, self.schedule.epochs * self.steps)
        return {"loss": loss / seen, "train_accuracy": right / seen, "lr": float(self.rates.get_last_lr()[0])}

    def _prepare(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = batch.x.to(self.device, non_blocking=True), batch.y.to(self.device, non_blocking=True)
        if self.schedule.crop:
            x = random_crop(x, self.schedule.crop, rng)
        if self.schedule.flip:
            x = random_flip(x, rng)
        return (x.contiguous(memory_format=self.layout) if x.ndim == 4 else x), y

    def finish(self) -> Fitted:
        """Give the chosen weights to the model; returns it in eval mode on its device."""
        self.current.load_state_dict(self.state.weights)
        model = materialized(self.current)
        sizes = [(p.numel(), p.requires_grad) for p in self.model.parameters()]
        training = Training(
            seconds=self.state.seconds,
            forwards=self.state.forwards,
            backwards=self.state.backwards,
            epochs=self.state.epoch,
            best_epoch=self.state.best_epoch,
            overfitted_epoch=self.state.overfitted_epoch,
            loss=self.state.loss,
            validation=self.state.best,
            parameters=sum(count for count, _ in sizes),
            trained_parameters=sum(count for count, trains in sizes if trains),
            remarks=remarks(self.model),
        )
        return Fitted(set_mode(moved(model, memory_format=torch.contiguous_format), "eval"), training)

    def save(self, folder: Path, line: Mapping[str, Any]) -> None:
        """Write what is needed to resume, the best model so far, and the log."""
        if self.state.best_epoch == self.state.epoch:
            checkpoints.save(materialized(self.current), folder, self.options.card)
        buffer = io.BytesIO()
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        torch.save({"about": kept(self.about), "state": asdict(self.state), **parts}, buffer)
        write(folder / STATE, buffer.getvalue())
        earlier = (folder / LOG).read_text().splitlines()[: self.state.epoch - 1] if (folder / LOG).exists() else []
        write(folder / LOG, "".join(f"{text}\n" for text in [*earlier, json.dumps(line)]))

    def resume(self, folder: Path) -> None:
        """Resume after the last finished epoch, if the folder holds one. Raises ValueError for a damaged file or another run's."""
        path = folder / STATE
        if not path.exists():
            return
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
            if "about" not in saved or saved["state"].keys() != asdict(self.state).keys():
                raise ValueError("another version of normwise wrote it")
            if told := changed(saved["about"], self.about):
                raise ValueError(f"it is from a training whose {told}")
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])
            self.state = _State(**saved["state"])
        except Exception as error:
            reason = str(error).split("\n")[0][:120]
            raise ValueError(f"{path} cannot be resumed ({reason}); give another folder, or delete it") from None

    def _about(self) -> dict[str, Any]:
        """What is trained, on what and how: the untrained model and the first batch by their digests."""
        with drawing(derive(self.seed, "first")):  # a DataLoader shuffles by torch's own random state
            first = next(
                iter(self.data.train(batch_size=self.schedule.batch_size, generator=generator(self.seed, "train", 0)))
            )
        told = {name: getattr(self, name) for name in ("recipe", "threat", "schedule", "seed")}
        return told | {"data": mark_of(first), "model": digest(self.model)}

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "rates": self.rates, "scaler": self.scaler}
        return parts | ({"average": self.average} if self.average else {})


def _check_synchronized(model: nn.Module) -> None:
    """Refuse norms that would read each process's own rows. Raises ValueError."""
    fixed = frozen(model)
    alone = [path for path, module in model.named_modules() if _unsynchronized(module) and module not in fixed]
    if alone:
        raise ValueError(
            f"a process group is running and {len(alone)} norms would use the batch of each process separately ({alone[0]}, ...); "
            'call convert_sync(model) first, or give options=FitOptions(stats="per-rank")'
        )


def _unsynchronized(module: nn.Module) -> bool:
    if isinstance(module, AdaptiveNorm):
        return module.reads_batch
    return isinstance(module, StatNorm | _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)


def _sentence(line: Mapping[str, Any], epochs: int) -> str:
    """Put a log line in words."""
    text = f"epoch {line['epoch']}/{epochs}: loss {line['loss']:.3f}, training {100 * line['train_accuracy']:.1f}%"
    for name in ("clean", "robust"):
        if f"validation_{name}" in line:
            text += f", validation {name} {100 * line[f'validation_{name}']:.1f}%"
    if overfitted({name: line.get(f"validation_{name}", 0.0) for name in ("clean", "one_step", "robust")}):
        text += f": overfitted to one step, which leaves {100 * line['validation_one_step']:.1f}%"
    return text
