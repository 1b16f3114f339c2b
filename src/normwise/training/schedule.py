"""How a network is trained: optimizer, learning rate, averaging, augmentation, precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

from ..norms.site import sites
from ..registry import check_words
from ..utils.processor import emulates_bfloat16

Optimizer = Literal["sgd", "adamw"]
Decay = Literal["cosine", "multistep", "onecycle", "constant"]
Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The settings of one training run.

    Options
        epochs          passes over the training images
        batch_size      images per step
        accumulate      parts of a batch that go through the network one after the other, to save memory; norms read each part alone
        optimizer       "sgd" (Nesterov) or "adamw"
        lr              largest learning rate, at most 1000
        momentum        momentum of sgd
        weight_decay    L2 (sgd) or decoupled (adamw), at most 1000
        decay_norms     apply weight decay to norm parameters, gains and biases too
        decay           learning rate: "cosine", "multistep", "onecycle" or "constant", stepped per batch
        milestones      multistep: fractions of training, between 0 and 1, at which the learning rate drops
        drop            multistep: factor of each drop, above 0 and at most 1
        ema             decay of the exponential moving average of the weights, per step; 0: no average
        ema_buffers     running statistics of the averaged model: "average" them too, or "copy" the latest
        crop            random crop after this many pixels of zero padding, fewer than the image has; 0: none
        flip            random horizontal flip
        precision       "fp32", or autocast in "bf16" or "fp16" (the latter on CUDA)
        channels_last   store images and convolutions in the layout channels_last, where that is safe on a CPU (see `layout`)
        validate_every  test the validation images every so many epochs, to choose the checkpoint; 0: keep the last epoch

    Raises ValueError for an option out of range.
    """

    epochs: int = 30
    batch_size: int = 128
    accumulate: int = 1
    optimizer: Optimizer = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_norms: bool = True
    decay: Decay = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    drop: float = 0.1
    ema: float = 0.0
    ema_buffers: Literal["average", "copy"] = "average"
    crop: int = 0
    flip: bool = False
    precision: Precision = "fp32"
    channels_last: bool = True
    validate_every: int = 1

    def __post_init__(self) -> None:
        for option, least in (("epochs", 1), ("batch_size", 2), ("accumulate", 1), ("crop", 0), ("validate_every", 0)):
            if getattr(self, option) < least:
                raise ValueError(f"schedule.{option} is {getattr(self, option)}; give a whole number >= {least}")
        if self.accumulate > self.batch_size:
            raise ValueError(f"schedule.accumulate is {self.accumulate}; give at most batch_size, {self.batch_size}")
        if not 0 < self.lr <= _LARGEST:
            raise ValueError(f"schedule.lr is {self.lr}; give a number above 0, at most {_LARGEST}")
        for option in ("momentum", "ema"):
            if not 0 <= getattr(self, option) < 1:
                raise ValueError(f"schedule.{option} is {getattr(self, option)}; give a number from 0 to below 1")
        if not 0 <= self.weight_decay <= _LARGEST:
            raise ValueError(f"schedule.weight_decay is {self.weight_decay}; give a number from 0 to {_LARGEST}")
        if not all(0 < milestone < 1 for milestone in self.milestones):
            given = ", ".join(map(str, self.milestones))
            raise ValueError(f"schedule.milestones is {given}; give fractions of training, each between 0 and 1, not epochs")
        if not 0 < self.drop <= 1:
            raise ValueError(f"schedule.drop is {self.drop}; give a factor above 0, at most 1")
        check_words(self)
        for option, (needs, used) in {
            "momentum": ("optimizer sgd", self.optimizer == "sgd"),
            "milestones": ("decay multistep", self.decay == "multistep"),
            "drop": ("decay multistep", self.decay == "multistep"),
            "ema_buffers": ("an ema above 0", self.ema > 0),
        }.items():
            value, default = getattr(self, option), getattr(type(self), option)
            if value != default and not used:
                shown = list(default) if isinstance(default, tuple) else default
                raise ValueError(
                    f"schedule.{option} is set, which only {needs} uses; give that, or leave {option} at {shown}"
                )


_LARGEST = 1000  # far beyond use, far below where float32 overflows


def optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Build the optimizer over the parameters that may train."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise ValueError("no parameter of the model is trainable; set requires_grad on some")
    spared = set() if schedule.decay_norms else _spared(model)
    decayed = [p for p in trainable if p not in spared]
    rest = [p for p in trainable if p in spared]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if schedule.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=schedule.lr)
    return torch.optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, nesterov=schedule.momentum > 0)


def _spared(model: nn.Module) -> set[nn.Parameter]:
    """Norm parameters, gains of standardized convolutions, and biases, of whatever shape; and vectors of layers not known."""
    spared = {p for path in sites(model) for p in model.get_submodule(path).parameters()}
    for path, module in model.named_modules():
        values = ".parametrizations." in f".{path}."  # entries of a weight, as a vector
        own = module.named_parameters(recurse=False)
        spared |= {p for name, p in own if name in ("bias", "gain") or (p.ndim <= 1 and not values)}
    return spared


def learning_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int) -> lr_scheduler.LRScheduler:
    """Build the learning-rate schedule over `steps` optimizer steps."""
    if schedule.decay == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if schedule.decay == "multistep":
        return lr_scheduler.MultiStepLR(optimizer, [round(m * steps) for m in schedule.milestones], schedule.drop)
    if schedule.decay == "onecycle":
        return lr_scheduler.OneCycleLR(optimizer, schedule.lr, total_steps=steps, cycle_momentum=False)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0, total_iters=1)


def average(model: nn.Module, schedule: Schedule) -> AveragedModel | None:
    """Build the moving average of the model's weights, or None without one. Counts, indexes and flags are copied."""
    if not schedule.ema:
        return None
    weighted = get_ema_multi_avg_fn(schedule.ema)

    def mean(averaged: PARAM_LIST, latest: PARAM_LIST, steps: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            weighted(averaged, latest, steps)
        else:
            for old, new in zip(averaged, latest, strict=True):
                old.copy_(new)

    return AveragedModel(model, multi_avg_fn=mean, use_buffers=schedule.ema_buffers == "average")


def autocast(schedule: Schedule, device: torch.device) -> torch.autocast:
    """Make the precision context. Raises ValueError where the device lacks the precision."""
    if schedule.precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 needs a CUDA device; this is {device.type}; use bf16 or fp32")
    return torch.autocast(device.type, _DTYPES.get(schedule.precision), enabled=schedule.precision != "fp32")


def emulated(schedule: Schedule, device: torch.device) -> str:
    """What to know of a precision that the processor has no instructions for; empty where it has them."""
    if schedule.precision != "bf16" or not emulates_bfloat16(device):
        return ""
    return "this processor has no instructions for bfloat16, and would train several times as fast with precision fp32"
