"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import losses
from ..data.augment import check_flip, random_crop, random_flip
from ..models import checkpoints
from ..norms.surgery.trainable import materialized
from ..norms.surgery.unmapped import remarks
from ..records import Training, write
from ..seeding import derive, drawing, generator
from ..types import Batch, Data, Recipe, ThreatModel, check_threat, silent
from ..utils.batches import Rows, input_mismatch
from ..utils.hashing import mark_of
from ..utils.layout import layout
from ..utils.model_state import device_of, identity, moved, running, set_mode
from . import schedule as scheduling
from .alone import SingleProcess
from .loaders import as_data
from .options import FitOptions
from .schedule import Schedule
from .state import State, read_state, save_state
from .validation import Validation, overfitted, sentence
from .watching import watched

LOG = "log.jsonl"


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

    `data` is a data set, or only training images, pixels in [0, 1]: a DataLoader or a list of pairs (images, labels), whose
    batches are taken as they are; or a Dataset or two tensors, from which batches are drawn anew in each epoch. Without
    validation images the last epoch is kept.

    The checkpoint is chosen on validation images (cut from the training set), never on test images. Recipes that train
    against an attack use accuracy under a short PGD, the others clean accuracy. The last checkpoint within a standard error
    of the best is taken, because smaller differences depend on the choice of the images (Breiman et al. 1984, Classification
    and Regression Trees, 3.4.3, choose so among trees).

    With `FitOptions(folder=...)` a stopped run resumes after its last finished epoch, or its last save within an epoch. It
    ends with the same weights as a run that was not stopped, if model, data and settings are the same; the device may be
    another.

    If torch's process group is running, its processes train together: each calls `fit` with the same model, data and
    settings. `batch_size` counts the images of all; the result is that of one process, up to rounding and to noise inside
    the model. A run may be resumed by another number of processes.

    Raises ValueError for a loss that is not finite, naming epoch and batch, for settings the device cannot run, and for a
    folder that holds another training, naming what differs, and for flips of data whose mirrored rows may have another
    class; of several processes also if they get different batches, if one of them has ended, and for norms that cannot be
    synchronized (see `convert_sync`).
    """
    check_threat(threat)
    with torch.inference_mode(False), torch.enable_grad():
        run = _Run(recipe.prepare(model), as_data(data), recipe, threat, schedule, seed, device_of(model), options)
        if slow := scheduling.emulated(schedule, run.device):
            run.report(f"time: {slow}", 0, schedule.epochs * run.steps)
        watching = options.folder if options.tensorboard and run.processes.first else None
        with watched(run.model, watching, run.state.epoch) as watch:
            while run.state.epoch < schedule.epochs:
                line = run.epoch()
                watch(line)  # before it is saved: an epoch that is done again takes its events back, and none is lost
                run.save(line)
                run.report(sentence(line, schedule.epochs), run.state.epoch * run.steps, schedule.epochs * run.steps)
        return run.finish()


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
        self.plain = moved(moved(self.model, device), memory_format=self.layout)
        self.processes = processes_of(device, self.options.stats == "synchronized")
        self.model = self.processes.ready(self.plain)
        self.steps = self.data.train_batches(schedule.batch_size)
        self.optimizer = scheduling.optimizer(self.model, schedule)
        self.rates = scheduling.learning_rate(self.optimizer, schedule, schedule.epochs * self.steps)
        self.average = scheduling.average(self.model, schedule)
        self.scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16")
        rows = self.data.validation(batch_size=250) if schedule.validate_every else []
        self.validation = Validation(rows, self.recipe, self.threat, schedule, self.seed, device, self.processes)
        self.report = self.options.report if self.processes.first else silent
        self.state, self.about = State(), dict[str, Any]()
        if self.options.folder:
            self.about = self._about()
            self.state = read_state(self.options.folder, self.about, self._parts(), device)
        self.clock = self.saved = time.monotonic()

    @property
    def current(self) -> nn.Module:
        """The model that would be used: the moving average where there is one."""
        return self.average.module if self.average else self.model

    def epoch(self) -> dict[str, Any]:
        """Train for one epoch, validate, keep the model if it is as good as the best; returns the log line."""
        line = {"epoch": self.state.epoch + 1, **self._train()}
        self.state.epoch, self.state.step, self.state.sums, self.state.draws = self.state.epoch + 1, 0, {}, {}
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
        self._tick()
        return line | {f"validation_{name}": value for name, value in scores.items()} | {"seconds": self.state.seconds}

    def _train(self) -> dict[str, float]:
        state, rng = self.state, generator(self.seed, "train", self.state.epoch)
        with running(self.model, "train"), drawing(derive(self.seed, "noise", state.epoch), [self.device]):
            batches = iter(self.data.train(batch_size=self.schedule.batch_size, generator=rng))
            if state.step:  # they were trained on before a stop
                deque(islice(batches, state.step), maxlen=0)
                state.put_draws(rng, self.device)
            for batch in batches:
                try:
                    self._step(batch, rng)
                except (RuntimeError, IndexError) as error:
                    late = (state.epoch or state.step) and "out of bounds" not in str(error)  # labels of a later batch
                    if late or isinstance(error, torch.OutOfMemoryError):
                        raise
                    about = f"labels from {int(batch.y.min())} to {int(batch.y.max())}"
                    raise ValueError(
                        f"cannot train, {about}: the model {input_mismatch(self.model, batch.x, error)}"
                    ) from error
                text = f"epoch {state.epoch + 1}/{self.schedule.epochs}, loss {state.sums['loss'] / state.sums['rows']:.3f}"
                self.report(text, state.epoch * self.steps + state.step, self.schedule.epochs * self.steps)
                if self.options.folder and self.processes.first and time.monotonic() - self.saved > self.options.every:
                    state.keep_draws(rng, self.device)
                    self._save_state()
        loss, right, rows = (state.sums[name] for name in ("loss", "right", "rows"))
        return {"loss": loss / rows, "train_accuracy": right / rows, "lr": float(self.rates.get_last_lr()[0])}

    def _step(self, batch: Batch, rng: torch.Generator) -> None:
        """Take one step on a batch, part by part."""
        state = self.state
        self.optimizer.zero_grad(set_to_none=True)
        for k, part in enumerate(_parts(batch, self.schedule.accumulate)):
            noise = derive(self.seed, "noise", state.epoch, state.step, k)
            with self.processes.share(part, noise) as (own, share):
                x, y = self._prepare(own, rng)
                with scheduling.autocast(self.schedule, self.device):
                    cost = self.recipe.loss(self.model, x, y, self.threat, generator=rng)
                right = int(losses.correct(cost.logits, y).sum())
                sums = self.processes.total(cost.loss.item() * len(y), right, len(y), cost.forwards, cost.backwards)
                if not math.isfinite(sums[0]):
                    raise Diverged(self._diverged(sums[0]))
                self.scaler.scale(cost.loss * (share * len(part.y) / len(batch.y))).backward()
            for name, value in zip(("loss", "right", "rows"), sums, strict=False):
                state.sums[name] = state.sums.get(name, 0.0) + value
            state.forwards, state.backwards = state.forwards + int(sums[3]), state.backwards + int(sums[4])
        self.processes.combine(self.model)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.rates.step()
        if self.average:
            self.average.update_parameters(self.model)
        state.step += 1

    def _diverged(self, loss: float) -> str:
        state = self.state
        kept = f"the last good checkpoint is of epoch {state.epoch}; " if state.epoch and self.options.folder else ""
        return f"the loss became {loss} in epoch {state.epoch + 1}, batch {state.step + 1}; {kept}lower schedule.lr"

    def _prepare(self, batch: Batch, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = batch.x.to(self.device, non_blocking=True), batch.y.to(self.device, torch.long, non_blocking=True)
        if self.schedule.crop:
            x = random_crop(x, self.schedule.crop, rng)
        if self.schedule.flip:
            x = random_flip(x, rng)
        return (x.contiguous(memory_format=self.layout) if x.ndim == 4 else x), y

    def finish(self) -> Fitted:
        """Give the chosen weights to the model; returns it in eval mode on its device."""
        model = self.current if self.model is self.plain else self.plain
        model.load_state_dict(self.state.weights)
        model = materialized(model)
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

    def save(self, line: Mapping[str, Any]) -> None:
        """Write what is needed to resume, the best model so far, and the log."""
        if not (folder := self.options.folder) or not self.processes.first:
            return
        if self.state.best_epoch == self.state.epoch:
            checkpoints.save(materialized(self.current), folder, self.options.card)
        earlier = (folder / LOG).read_text().splitlines()[: self.state.epoch - 1] if (folder / LOG).exists() else []
        write(folder / LOG, "".join(f"{text}\n" for text in [*earlier, json.dumps(line)]))
        self._save_state()  # last: what comes before is written again by who resumes

    def _save_state(self) -> None:
        assert self.options.folder
        self._tick()
        save_state(self.options.folder, self.about, self.state, self._parts())
        self.saved = time.monotonic()

    def _tick(self) -> None:
        """Count the time since the last count."""
        now = time.monotonic()
        self.state.seconds, self.clock = self.state.seconds + now - self.clock, now

    def _about(self) -> dict[str, Any]:
        """What is trained, on what and how: the untrained model, in whatever mode it is given, and the first batch by their digests."""
        with drawing(derive(self.seed, "first")):  # a DataLoader shuffles by torch's own random state
            first = next(
                iter(self.data.train(batch_size=self.schedule.batch_size, generator=generator(self.seed, "train", 0)))
            )
        settings = {name: getattr(self, name) for name in ("recipe", "threat", "schedule", "seed")}
        with running(self.plain, "train"):
            model = identity(self.plain)
        return settings | {"data": mark_of(first), "model": model.digest, "code or attributes of the model": model.settings}

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "rates": self.rates, "scaler": self.scaler}
        return parts | ({"average": self.average} if self.average else {})


def processes_of(device: torch.device, synchronized: bool) -> SingleProcess:
    """The processes that train: this one, or those of torch's process group, with `synchronized` batch statistics or each its own."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return SingleProcess()
    from .distributed import ProcessGroup

    return ProcessGroup(device, synchronized)


def _parts(batch: Batch, count: int) -> list[Batch]:
    """A batch in so many parts, or as many as it has rows."""
    count = min(count, len(batch.y))
    return [Batch(*part) for part in zip(*(tensor.tensor_split(count) for tensor in batch), strict=True)]
