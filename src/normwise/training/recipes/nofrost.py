"""NoFrost: clean and adversarial images in one loss, for networks that normalize nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Generator, nn
from torch.nn import functional as F

from ...data.augment import chains, colour_distortion
from ...norms.adaptive import AdaptiveNorm
from ...norms.site import reads, sites
from ...types import Cost, Images, Labels, ThreatModel
from ...utils.forward import logits_of
from ...utils.model_state import copied
from .mixed import Crafting, Mixed, check_lam

STREAMS: dict[str, Callable[[Images, Generator], Images]] = {"colour": colour_distortion, "chains": chains}


@dataclass(frozen=True, kw_only=True)
class NoFrost(Crafting):
    """The loss of `mixed` with separate forwards, for a network without any norm; it refuses others.

    Options
        lam                 weight of the adversarial images, between 0 and 1
        steps               PGD steps per batch, from a random start
        relative_step       step length as a fraction of the radius; null: min(1.25 eps, eps + 4/255) / steps
        craft_in            mode of the network while images are made: "eval" (no dropout, no stochastic depth) or "train"
        label_smoothing     share of the target spread over all classes, 0 to below 1, in both terms

    Cost: steps + 2 forwards and backwards per image.
    Source: Wang et al. 2022, arXiv:2207.01156, as in their code. Differs: crafted before the clean forward, so that no graph
    is held meanwhile; without batch statistics the loss is the same.
    """

    name: ClassVar[str] = "nofrost"
    label: ClassVar[str] = "NoFrost"

    lam: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lam(self.name, self.lam)

    def prepare(self, model: nn.Module) -> nn.Module:
        return _without_norms(self.name, model)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        same = Mixed(
            lam=self.lam,
            steps=self.steps,
            relative_step=self.relative_step,
            craft_in=self.craft_in,
            label_smoothing=self.label_smoothing,
        )
        return same.loss(model, x, y, threat, generator=generator)


@dataclass(frozen=True, kw_only=True)
class NoFrostStar(Crafting):
    """NoFrost*: the mean of CE over the clean images, over augmented streams of them, and over the adversarial images.

    Adversarial images are made of the clean ones alone. Networks that normalize are refused.

    Options
        streams             sets of augmented images: "colour" (distorted colours, which remove texture) and "chains"
                            (chains of distortions mixed with the image, in place of DeepAugment)
        steps               PGD steps per batch, from a random start
        relative_step       step length as a fraction of the radius; null: min(1.25 eps, eps + 4/255) / steps
        craft_in            mode of the network while images are made: "eval" (no dropout, no stochastic depth) or "train"
        label_smoothing     share of the target spread over all classes, 0 to below 1, in every term

    Cost: steps + 2 forwards and backwards per image, and one of each per stream.
    Source: Wang et al. 2022, arXiv:2207.01156, as in their code. Differs: DeepAugment's images, which networks of its own
    make beforehand, are not available: an AugMix-like stream stands in for them; every stream is made of the images of the
    batch, after its crops and flips, where theirs have crops of their own; as `nofrost` otherwise.
    """

    name: ClassVar[str] = "nofrost-star"
    label: ClassVar[str] = "NoFrost*"

    streams: tuple[Literal["colour", "chains"], ...] = ("colour", "chains")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.streams or not set(self.streams) <= set(STREAMS):
            raise ValueError(f"streams of {self.name} is {self.streams}; give one or more of {', '.join(STREAMS)}")

    def prepare(self, model: nn.Module) -> nn.Module:
        return _without_norms(self.name, model)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        crafted = self.craft(model, x, y, threat, generator)
        inputs = [x, *(STREAMS[stream](x, generator) for stream in self.streams), crafted.x_adv]
        answers = [logits_of(model, images) for images in inputs]
        terms = [F.cross_entropy(logits, y, label_smoothing=self.label_smoothing) for logits in answers]
        n = len(inputs) * len(x)
        return Cost(sum(terms[1:], terms[0]) / len(terms), answers[-1].detach(), crafted.forwards + n, crafted.backwards + n)


@dataclass(frozen=True, kw_only=True)
class MixedStar(NoFrostStar):
    """The loss of `nofrost-star` for networks with norms: every set of images has a forward pass, and batch statistics, of its own.

    Options: those of `nofrost-star`.

    Cost: that of `nofrost-star`.
    Source: the control that gives BatchNorm the images that Wang et al. 2022, arXiv:2207.01156, give NoFrost*.
    """

    name: ClassVar[str] = "mixed-star"
    label: ClassVar[str] = "mixed with streams"

    def prepare(self, model: nn.Module) -> nn.Module:
        return copied(model)


def _without_norms(recipe: str, model: nn.Module) -> nn.Module:
    """Copy a model that normalizes nothing; scale and shift alone (`none`) are no norm. Raises ValueError for any other."""
    left = [path for path in sites(model) if reads(model.get_submodule(path)) != frozenset({"none"})]
    left += [path for path, module in model.named_modules() if _normalizes_elsewhere(module)]
    if left:
        raise ValueError(
            f"{recipe} is for networks that normalize nothing; this one has {len(left)} norms ({left[0]}, ...): "
            "use model nfresnet or norm none, or the recipe mixed, which is the same loss with norms"
        )
    return copied(model)


def _normalizes_elsewhere(module: nn.Module) -> bool:
    """Whether a module normalizes where no site is listed: no norm of ours could take its place."""
    if isinstance(module, AdaptiveNorm):
        return module.source in ("statistics", "constant")  # in the others a norm is within, which is a site
    return isinstance(module, nn.LocalResponseNorm | nn.CrossMapLRN2d)
