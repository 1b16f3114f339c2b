"""The types that all packages share. Nothing here computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

Images = Float[Tensor, "b *chw"]  # pixels in [0, 1]; an image is (b, c, h, w), a clip (b, c, t, h, w)
Labels = Int[Tensor, "b"]
Logits = Float[Tensor, "b k"]
Rows = Bool[Tensor, "b"]  # one answer per row
PerRow = Float[Tensor, "b"]  # one number per row
Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) -> one number per row; larger is worse for the model
Mode = Literal["eval", "train"]
Goal = Literal["misclassified", "targeted"]  # what the attacker wants of a row
Report = Callable[[str, int, int], None]  # progress: what is going on, parts done, parts in all


def silent(text: str, done: int, total: int) -> None:
    """A `Report` that says nothing."""


class Batch(NamedTuple):
    """Some rows of a data set: pixels, labels, and each row's index in its split."""

    x: Images
    y: Labels
    ids: Int[Tensor, b]


class Proposal(NamedTuple):
    """What an attack returns: images and what they cost, never a verdict.

    `first_hit` is, per row, the gradient step at which the search first saw the row fall (-1: never, or it did not look).
    `forwards` and `backwards` count images through the network. `part` is, per row, which of the attack's `parts` found the
    image (an attack without parts is its own part 0). `fallen`, of an attack with parts: how many rows had fallen in the
    images kept after each part.
    """

    x_adv: Images
    first_hit: Int[Tensor, b]
    forwards: int
    backwards: int
    part: Int[Tensor, b] | None = None
    fallen: Int[Tensor, parts] | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """What an attack may count on when it searches, and what it is after.

    independent  no row's answer depends on another row (measured by `coupling`): each row leaves the search as soon as it has
                 reached the goal, and keeps its own best image; else batches are kept whole
    stops        reaching the goal ends a row's search; False for a model that is not the one the images are checked on, or
                 that draws noise of its own: such a row is searched to the end
    give_up      a long search may leave rows that look hopeless
    goal         "misclassified": any class but the label y; "targeted": the class y itself
    """

    independent: bool = False
    stops: bool = True
    give_up: bool = True
    goal: Goal = "misclassified"


WHOLE = Search()  # nothing is known of the rows: batches are kept whole


@runtime_checkable
class Region(Protocol):
    """The allowed images around one batch."""

    @property
    def kind(self) -> str:
        """The geometry, for attacks that are defined for some only: "linf", "l2", "l1", or a threat model's own name."""

    @property
    def radius(self) -> float:
        """The largest distance allowed, in the region's own geometry (pixels in [0, 1])."""

    @property
    def victims(self) -> Rows:
        """The rows the attacker is after."""

    @property
    def generator(self) -> Generator:
        """Where random draws in this region come from."""

    def start(self) -> Images:
        """Draw a random allowed point."""

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        """Make the step of length `size` (one for all rows, or one per row) that raises the loss most, to first order."""

    def project(self, x_adv: Images) -> Images:
        """Return the nearest allowed point."""

    def distance(self, x_adv: Images) -> PerRow:
        """Return each row's distance from its clean image."""

    def contains(self, x_adv: Images) -> Rows:
        """Say per row whether the point is allowed, up to rounding."""

    def select(self, rows: Tensor) -> Region:
        """Return the same region around some of the rows (a mask, or indices)."""


@runtime_checkable
class ThreatModel(Protocol):
    """What the attacker may do: a frozen dataclass such as `Linf(eps=8/255)`."""

    name: ClassVar[str]

    def around(self, x: Images, *, generator: Generator) -> Region:
        """Return the allowed region around the batch `x`."""


def check_threat(threat: object) -> None:
    """Refuse what is no threat model, such as a radius alone. Raises ValueError."""
    if isinstance(threat, type) or not isinstance(threat, ThreatModel):
        shown = threat.__name__ if isinstance(threat, type) else repr(threat)[:60]
        raise ValueError(f"threat is {shown}; give a threat model, such as nw.Linf(8 / 255)")


@runtime_checkable
class Attack(Protocol):
    """How the attacker searches: a frozen dataclass such as `PGD(steps=20)`."""

    name: ClassVar[str]

    def __call__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: Generator,
        search: Search = WHOLE,
    ) -> Proposal:
        """Propose images inside `threat.around(x)`; `y` are the labels, or the classes to reach (see `Search`)."""


class Site(NamedTuple):
    """One place where a network normalizes: what a `Norm` needs to fill it.

    `path` is the module's name inside its network, empty while the network is being built. `axis` is where channels are: 1
    in (b, c, ...), -1 in tokens (b, n, c).
    """

    channels: int
    path: str = ""
    axis: int = 1


@runtime_checkable
class Norm(Protocol):
    """Which normalization: a frozen dataclass such as `RNT(power=0.2)`."""

    name: ClassVar[str]

    def __call__(self, site: Site) -> nn.Module:
        """Build the module that takes the place of one site."""


@runtime_checkable
class Recipe(Protocol):
    """What is minimized, and what may train: a frozen dataclass such as `Adversarial(steps=7)`.

    `robust`: its aim is accuracy under attack, so that checkpoints are chosen by that.
    """

    name: ClassVar[str]
    robust: ClassVar[bool]

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return a copy of the model, made ready: surgery, and what may train."""

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        """Compute the one number to descend."""


@runtime_checkable
class Data(Protocol):
    """A data set: a frozen dataclass such as `Cifar10(root="data")`. Pixels are in [0, 1]."""

    name: ClassVar[str]

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training rows."""

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over the training rows."""

    def train_batches(self, batch_size: int) -> int:
        """Count the batches of one epoch."""

    def train(self, *, batch_size: int, generator: Generator) -> Iterable[Batch]:
        """Go once through the training rows, shuffled by the generator."""

    def validation(self, *, batch_size: int) -> Sequence[Batch]:
        """Rows that neither train nor test: they choose checkpoints and settings."""

    def test(self, *, batch_size: int) -> Sequence[Batch]:
        """Test rows in fixed batches of fixed order: seen by `evaluate` alone."""


class Cost(NamedTuple):
    """A training loss with what it took: images forward and backward, crafting included, its own backward too."""

    loss: Float[Tensor, ""]
    logits: Logits
    forwards: int
    backwards: int
