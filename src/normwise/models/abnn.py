"""ABNN: a network whose statistics come from a frozen substitute that sees the same input; and weaker attackers of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..norms.adaptive import AdaptiveNorm, Head, Scope, Source, check_adaptive
from ..registry import unknown
from ..seeding import generator
from ..types import Images, Logits
from ..utils.forward import logits_of
from ..utils.model_state import Frozen, copied, device_of, moved, running, set_mode, untouched

READ = ":in"  # ends the name of a tap that is what a module reads, not what it answers


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Which adaptive layers are put into a target, and where (see `AdaptiveNorm`).

    Options
        source              what the substitute gives: "features" (authors' code), "statistics", "constant", "fusion" or "plain"
        scope               statistics over "batch", "channel" or "sample"; null: the default of the source
        head                how features enter its linear layer: "pooled" or "flattened"
        affine              of features: BatchNorm's own scale and shift are kept inside the layer
        taps                places in the target: names of modules whose outputs (b, c, ...) are adapted, "NAME:in" for the
                            input of a module; empty: found by name (see `find_taps`)
        substitute_taps     places in the substitute whose features are read; empty: `taps`, or found by name

    Raises ValueError for options that do not go together.
    """

    source: Source = "features"
    scope: Scope | None = None
    head: Head = "pooled"
    affine: bool = True
    taps: tuple[str, ...] = ()
    substitute_taps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_adaptive(self.source, self.scope, self.head, self.affine)
        if self.source == "plain" and self.substitute_taps:
            raise ValueError(
                f"substitute_taps are {', '.join(self.substitute_taps)}, and source plain reads no substitute; leave them out"
            )


class Aligned(NamedTuple):
    """Logits, and the alignment loss: mean over the layers of `AdaptiveNorm.divergence`, in nats."""

    logits: Logits
    alignment: Tensor


class ABNN(nn.Module):
    """A target with an adaptive layer at each tap, and its frozen substitute; made by `abnn`.

    Images (b, c, ...) with pixels in [0, 1] -> logits (b, classes of the target). Both networks see the same x, and gradients
    in x flow through both. The substitute is in evaluation mode always, and none of its parameters or buffers changes.
    """

    def __init__(
        self,
        target: nn.Module,
        substitute: nn.Module | None,
        layers: Sequence[AdaptiveNorm],
        taps: Sequence[str],
        substitute_taps: Sequence[str],
    ) -> None:
        super().__init__()
        self.target, self.adaptive = target, nn.ModuleList(layers)
        self.substitute = None if substitute is None else Frozen(substitute)
        self._links = [_Link(layer) for layer in layers]
        for link, tap in zip(self._links, taps, strict=True):
            _hook(target, tap, link.adapt, link.adapt_input)
        for link, tap in zip(self._links if substitute else (), substitute_taps if substitute else (), strict=True):
            _hook(substitute, tap, link.read, link.read_input)  # type: ignore[arg-type]

    def forward(self, x: Images) -> Logits:
        return self.answer(x, x).logits

    def aligned(self, x: Images) -> Aligned:
        """Logits and alignment loss of the same pass."""
        return self.answer(x, x, align=True)

    def answer(self, x: Images, seen: Images, *, align: bool = False) -> Aligned:
        """What the target makes of x when the substitute sees `seen`: x itself in the true model, else a weaker view of it."""
        links = self._links
        try:
            for link in links:
                link.align, link.used = align, False
            if self.substitute is not None:
                self.substitute(seen.clone())  # it may write into what it is given
            logits = logits_of(self.target, x)
            if not all(link.used for link in links):
                raise ValueError(
                    "a tap of the target was not passed: its module was replaced or left out; build the ABNN last"
                )
            found = [link.divergence for link in links if link.divergence is not None]
            return Aligned(logits, torch.stack(found).mean() if found else x.new_zeros(()))
        finally:
            for link in links:
                link.features = link.divergence = None


class _Link:
    """Carries one tap's features from the substitute to the layer in the target, within one pass."""

    def __init__(self, layer: AdaptiveNorm) -> None:
        self.layer = layer
        self.features: Any = None
        self.divergence: Any = None
        self.align = self.used = False

    def read(self, module: nn.Module, args: Any, output: Any) -> None:
        self.features = output

    def read_input(self, module: nn.Module, args: Any) -> None:
        self.features = args[0]

    def adapt(self, module: nn.Module, args: Any, output: Any) -> Any:
        if self.align and self.features is not None:
            self.divergence = self.layer.divergence(output, self.features)
        self.used = True
        return self.layer(output, self.features)

    def adapt_input(self, module: nn.Module, args: Any) -> Any:
        return (self.adapt(module, (), args[0]), *args[1:])


def abnn(target: nn.Module, substitute: nn.Module | None, options: Adaptive | None = None, *, shape: Sequence[int]) -> ABNN:
    """Make a new model: a copy of the target, adapted at its taps by a frozen copy of the substitute.

    `shape` is that of one input, (c, h, w) or (c, t, h, w): the sizes of features are found by one pass. The substitute may
    have another architecture, other classes, another standardization (inside it). None where nothing is read of it
    (source "plain"). Both models given stay as they are; the copy is in evaluation mode.

    Raises ValueError where taps are not found, are not passed exactly once, give no features (b, c, ...), or do not match.
    Source: see `AdaptiveNorm`. Differs: networks of any kind, where the code has a 3D ResNet-18 and a 3D ResNeXt-101.

    >>> model = abnn(model, model, Adaptive(taps=("conv1",)), shape=(2, 6, 6))
    """
    options = options or Adaptive()
    target = set_mode(copied(target), "eval")
    taps = options.taps or find_taps(target, "target")
    sizes = _probe(target, taps, shape, "target")
    read: tuple[str, ...] = ()
    features: list[tuple[int, ...]] = [()] * len(taps)
    if options.source == "plain":
        substitute = None
    elif substitute is None:
        raise ValueError(f"source {options.source} reads a substitute; got None; give a network, or source='plain'")
    else:
        substitute = moved(set_mode(copied(substitute), "eval"), device_of(target))
        read = options.substitute_taps or options.taps or find_taps(substitute, "substitute")
        if len(read) != len(taps):
            raise ValueError(
                f"the target has {len(taps)} taps ({', '.join(taps)}), the substitute {len(read)} ({', '.join(read)}); "
                "expected as many: name them with taps and substitute_taps"
            )
        features = _probe(substitute, read, shape, "substitute")
    kinds: dict[str, Any] = {key: getattr(options, key) for key in ("source", "scope", "head", "affine")}
    layers = [AdaptiveNorm(size[0], feature, **kinds) for size, feature in zip(sizes, features, strict=True)]
    model = ABNN(target, substitute, layers, taps, read).eval()
    model.adaptive.to(device=device_of(target), dtype=_dtype(target))
    return model


def find_taps(model: nn.Module, called: str = "model") -> tuple[str, ...]:
    """Name the taps of a network of a known make: after the stem and after each stage.

    Residual networks with modules layer1, layer2, ... (ours, and the common ones): "layer1:in", "layer1", "layer2", ... .
    VGGs with a Sequential `features`: after each pooling (the first is the stem's, as in the authors' networks).
    Raises ValueError for other networks.
    """
    children = dict(model.named_children())
    stages = [name for n in range(1, len(children) + 1) if (name := f"layer{n}") in children]
    if stages:
        return f"{stages[0]}{READ}", *stages
    pools = tuple(f"features.{name}" for name, module in _children(children.get("features")) if _pools(module))
    if pools:
        return pools
    raise ValueError(
        f"the {called}, a {type(model).__name__}, has no taps that are known (layer1, ..., or features with pooling); "
        f"name modules of it: {'substitute_taps' if called == 'substitute' else 'taps'}"
    )


def detached(model: nn.Module) -> nn.Module:
    """The view of a weaker attacker: the logits of the model, and the gradient of the target alone (the substitute's is cut).

    A copy, for `evaluate(model, ..., craft_on=detached(model))`; figures made so are to be labelled.
    Raises ValueError for a model that is no ABNN.
    """
    return _Detached(_known(copied(model)))


def fixed_at(model: nn.Module, clean: Images) -> nn.Module:
    """The view of a weaker attacker: for each image, the substitute sees the nearest image of `clean` (l2).

    So its statistics stay those of the clean input, as if an attacker could not move them. `clean` holds all the images that
    will be attacked, (n, c, ...); nearest, because misclassified images leave a batch. Where radii are so large that an image
    may come nearer to another one, give one batch at a time. A copy, for `craft_on`; figures made so are to be labelled.
    Raises ValueError for a model that is no ABNN.
    """
    return _FixedAt(_known(copied(model)), clean)


class _Detached(nn.Module):
    def __init__(self, model: ABNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.answer(x, x.detach()).logits


class _FixedAt(nn.Module):
    clean: Tensor

    def __init__(self, model: ABNN, clean: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("clean", clean.detach().clone().to(device_of(model)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            nearest = torch.cdist(x.flatten(1).to(self.clean.dtype), self.clean.flatten(1)).argmin(1)
            seen = self.clean[nearest].to(x.dtype)
        return self.model.answer(x, seen).logits


def _known(model: nn.Module) -> ABNN:
    if not isinstance(model, ABNN):
        raise ValueError(f"got a {type(model).__name__}, which has no substitute; give a model made by abnn(...)")
    return model


def _children(module: nn.Module | None) -> list[tuple[str, nn.Module]]:
    return [] if module is None else list(module.named_children())


def _pools(module: nn.Module) -> bool:
    return isinstance(module, nn.MaxPool2d | nn.MaxPool3d | nn.AvgPool2d | nn.AvgPool3d)


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.get_default_dtype())


def _hook(network: nn.Module, tap: str, after: Any, before: Any) -> Any:
    module = network.get_submodule(tap.removesuffix(READ))
    return module.register_forward_pre_hook(before) if tap.endswith(READ) else module.register_forward_hook(after)


def _probe(network: nn.Module, taps: Sequence[str], shape: Sequence[int], called: str) -> list[tuple[int, ...]]:
    """The shapes of the features of one input at the taps. Raises ValueError as `abnn`."""
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError(f"the {called} is scripted, and its features cannot be read; give the network that was scripted")
    names = [name for name, _ in network.named_modules() if name]
    for tap in taps:
        if tap.removesuffix(READ) not in names:
            raise unknown(f"module of the {called}", tap, names, f"it has {', '.join(names[:8])}, ...; name others as taps")
    found: dict[str, list[Any]] = {tap: [] for tap in taps}
    handles = []
    for tap, seen in found.items():
        handles.append(
            _hook(
                network,
                tap,
                lambda m, args, out, seen=seen: seen.append(out),
                lambda m, args, seen=seen: seen.extend(args[:1]),
            )
        )
    x = torch.zeros(2, *shape, device=device_of(network), dtype=_dtype(network))
    try:
        with running(network, "eval"), untouched(network, generator(0, "probe")), torch.no_grad():
            network(x)
    except Exception as error:
        first = str(error).split("\n")[0][:120]
        raise ValueError(
            f"the {called} cannot take images of shape {tuple(shape)} ({first}); give the shape of its own"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    for tap, seen in found.items():
        if len(seen) != 1:
            raise ValueError(f"tap {tap} of the {called} was passed {len(seen)} times; expected once: name another module")
        if not isinstance(seen[0], Tensor) or seen[0].ndim < 2 or len(seen[0]) != 2:
            got = tuple(seen[0].shape) if isinstance(seen[0], Tensor) else type(seen[0]).__name__
            raise ValueError(f"tap {tap} of the {called} gives {got}; expected features (b, c, ...): name another module")
    if len(found) != len(taps):
        raise ValueError(f"the taps of the {called} are {', '.join(taps)}; expected each once: leave the second one out")
    return [tuple(found[tap][0].shape[1:]) for tap in taps]
