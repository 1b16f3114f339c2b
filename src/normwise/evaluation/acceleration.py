"""What makes a search faster: copies of a network and shortcuts. Success is always checked on the network itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..norms.surgery.folding import fold
from ..registry import check_words
from ..types import Images
from ..utils.fidelity import difference_from
from ..utils.layout import layout
from ..utils.model_state import copied
from ..utils.per_row import over
from .input_conv import lighter

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What makes a search faster. Switches change the search or the copy that it runs on; success is checked on the network itself.

    Options
        fold            fold norms into the convolutions before them
        channels_last   use the memory layout channels_last, which convolutions prefer
        first_layer     compute the gradient of strided convolutions that read images by a sub-pixel convolution: CPU only, not compiled
        compile         torch.compile; on GPUs with CUDA graphs. Batches are padded to few sizes. The first use takes a minute
        precision       precision of the search: "float32", "bfloat16" or "float16"; success is checked in the network's own
        drop            early stopping: misclassified images leave this search and the later ones, if images are independent; False:
                        every attack searches every correct image to the end, and keeps the largest loss
        give_up         long searches (APGD, FAB, Square) stop early on images whose margin shrinks too slowly; False: they do not

    Source of folding: the identity conv(x) a + b of a fixed norm; Jacob et al. 2018, arXiv:1712.05877, sec. 3.2.
    """

    fold: bool = True
    channels_last: bool = True
    first_layer: bool = True
    compile: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    drop: bool = True
    give_up: bool = True

    def __post_init__(self) -> None:
        check_words(self)

    @property
    def on_the_model(self) -> Speed:
        """The same without a copy: what it says of the search alone."""
        return replace(EAGER, drop=self.drop, give_up=self.give_up)

    @property
    def whole(self) -> Speed:
        """The same for batches that must stay whole and exact: not filled up, in float32."""
        return replace(self, compile=False, precision="float32")


FAST, EAGER = Speed(), Speed(fold=False, channels_last=False, first_layer=False)


class Copies(NamedTuple):
    """The copies to search on, one or none, and why one that was made is not used."""

    made: tuple[nn.Module, ...] = ()
    difference: str = ""


def faster(model: nn.Module, speed: Speed, x: Images, seed: int) -> Copies:
    """A copy of the model to search on, if it can be made, and answers `x` alike up to rounding (see `fidelity.difference_from`)."""
    if speed == speed.on_the_model:
        return Copies()
    try:
        with torch.inference_mode(False):  # in which the copy could have no gradient
            made = _copy(model, speed, x)
        differs = difference_from(model, made, x, seed, speed.precision)
        return Copies(difference=differs) if differs else Copies((made,))
    except TimeoutError:
        raise
    except Exception:  # a model that cannot be copied or asked this way is searched as it is
        return Copies()


def _copy(model: nn.Module, speed: Speed, x: Images) -> nn.Module:
    made = fold(model) if speed.fold else copied(model)
    made.requires_grad_(False)  # gradients are taken in pixels alone
    if speed.first_layer and x.device.type == "cpu" and not speed.compile:
        made = lighter(made)
    pictures = speed.channels_last and x.ndim == 4 and x.shape[1] > 1 and layout(made, x.device) == torch.channels_last
    if pictures:
        made = made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    inner: nn.Module = _Cast(made, PRECISIONS[speed.precision], pictures)
    if speed.compile:
        graphs = x.device.type == "cuda"
        inner = _Filled(torch.compile(inner, mode="reduce-overhead" if graphs else "default"), graphs)  # type: ignore[arg-type]
    return _Scaled(inner) if speed.precision == "float16" else inner


_WEIGHED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # exact types: a subclass may compute with its weights


class _Cast(nn.Module):
    """Asks the network in another layout and precision; pixels and logits keep theirs."""

    def __init__(self, model: nn.Module, dtype: torch.dtype | None, pictures: bool) -> None:
        super().__init__()
        self.model, self.dtype, self.pictures = model, dtype, pictures
        for layer in model.modules() if dtype else ():
            if type(layer) in _WEIGHED:
                layer.to(dtype)  # once, not in every pass

    def forward(self, x: Tensor) -> Tensor:
        if self.pictures:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.dtype is None:
            plain: Tensor = self.model(x)
            return plain
        with torch.autocast(x.device.type, dtype=self.dtype):
            logits: Tensor = self.model(x)
        return logits.to(x.dtype)


class _Scaled(nn.Module):
    """Keeps the gradients of confident rows from falling below what float16 can hold.

    On the way back each row's gradient is multiplied by a power of two at the logits, so that its largest entry is about 1,
    and divided by it again at the pixels. Source: loss scaling, Micikevicius et al. 2018, arXiv:1710.03740, sec. 3.2.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        inside, exponent = x.clone(), torch.zeros(0)

        def up(grad: Tensor) -> Tensor:
            nonlocal exponent
            exponent = torch.frexp(grad.abs().amax(1)).exponent.clamp(-100, 100)
            return torch.ldexp(grad, -exponent[:, None])

        logits: Tensor = self.model(inside)
        if logits.requires_grad and inside.requires_grad:
            logits.register_hook(up)  # runs before the other: it is met first on the way back
            inside.register_hook(lambda grad: torch.ldexp(grad, over(exponent, grad)))
        return logits


class _Filled(nn.Module):
    """Fills batches up to 1, 2, 3, 4, 6, 8, 12, 16, ... rows, so that what is compiled for a size is used again.

    torch counts what it compiled for all networks of a process together and stops at 8, which one network uses up (five
    sizes, with and without gradient): those after it would run eagerly, so that the limit is another one here.
    """

    LIMIT = 256

    def __init__(self, model: nn.Module, graphs: bool) -> None:
        super().__init__()
        self.model, self.graphs = model, graphs

    def forward(self, x: Tensor) -> Tensor:
        rows, power = len(x), 1 << (len(x) - 1).bit_length()
        size = power * 3 // 4 if rows <= power * 3 // 4 else power
        filled = torch.cat([x, x[:1].detach().expand(size - rows, *x.shape[1:])]) if size > rows else x
        with torch._dynamo.config.patch(recompile_limit=self.LIMIT):
            logits: Tensor = self.model(filled * 1 if self.graphs else filled)[:rows]
        return logits.clone() if self.graphs else logits  # a graph's logits and gradients lie where its next pass writes
