"""A training in several processes: each takes its rows of every batch, and what comes out is what one process would make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..norms.surgery.conversion import convert_sync
from ..seeding import Slice, derive, drawing, sharing
from ..types import Batch
from ..utils.hashing import mark_of
from ..utils.model_state import frozen
from ..utils.processes import add, alone, from_first, gather
from .alone import SingleProcess


class ProcessGroup(SingleProcess):
    """The processes of torch's process group. Every one sees every batch, draws for all of its rows, and computes its own.

    Gradients are summed once per step, without DistributedDataParallel (docs/house.md says why). With `synchronized`, batch
    statistics are those of the whole batch; else each process normalizes by its own rows, and running statistics are
    averaged after every step.
    """

    def __init__(self, device: torch.device, synchronized: bool) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.first = self.rank == 0
        self.device, self.synchronized = device, synchronized
        self._agreed = False  # whether the processes were found to see the same batches
        self._whole = False  # the batch has fewer rows than there are processes: each takes all of them

    def ready(self, model: nn.Module) -> nn.Module:
        """A copy, synchronized, with the weights of the first process. Raises ValueError as `convert_sync` does."""
        for tensor in (*model.parameters(), *model.buffers()):
            from_first(tensor)
        return convert_sync(model) if self.synchronized else model

    @contextmanager
    def share(self, batch: Batch, noise: int) -> Iterator[tuple[Batch, float]]:
        rows = len(batch.y)
        if not self._agreed:
            self._check(f"{mark_of(batch)}{noise:016x}")
        self._whole = rows < self.size
        first, end = (0, rows) if self._whole else (rows * self.rank // self.size, rows * (self.rank + 1) // self.size)
        own = Batch(*(tensor[first:end] for tensor in batch))
        weight = 1 / self.size if self._whole else (end - first) / rows
        with (
            alone() if self._whole else sharing(Slice(first, end - first, rows)),
            drawing(noise if self._whole else derive(noise, self.rank), [self.device]),
        ):
            yield own, weight

    def total(self, *numbers: float) -> tuple[float, ...]:
        if self._whole:
            return numbers
        sums = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        add(sums)
        return tuple(sums.tolist())

    def _check(self, mark: str) -> None:
        """Refuse processes that are at different batches, by the digest of this one's. Raises ValueError."""
        codes = gather(torch.tensor(list(mark.encode()), device=self.device))
        if not (codes == codes[0]).all():
            raise ValueError(
                f"the {self.size} processes have different batches; each has to get the same whole batches, in one order, with one "
                "seed, and to read the same folder: leave a DistributedSampler out"
            )
        self._agreed = True

    def combine(self, model: nn.Module) -> None:
        _add_all(p.grad for p in model.parameters() if p.grad is not None)
        if not self.synchronized:
            fixed = frozen(model)
            layers = [module for module in model.modules() if module not in fixed]
            buffers = [one for layer in layers for one in layer.buffers(recurse=False) if one.is_floating_point()]
            _add_all(buffers)
            for buffer in buffers:
                buffer.div_(self.size)


def _add_all(tensors: Iterable[Tensor]) -> None:
    """Replace tensors by their sums over the processes: one message for each dtype."""
    by_dtype = dict[torch.dtype, list[Tensor]]()
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for alike in by_dtype.values():
        flat = torch.cat([tensor.flatten() for tensor in alike])
        add(flat)
        for tensor, part in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.copy_(part.view_as(tensor))
