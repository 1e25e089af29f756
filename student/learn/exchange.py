"""One learner in several processes: what its ranks tell each other. One process needs no torch.distributed for it.

All ranks call the same methods in the same order and get the same numbers, so that they take the same decisions.
Nothing but numbers and bytes travels. Shapes: B rows, b rows of one rank.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined] # both are documented there

from runtime.errors import GraftError, first_line
from stream.log.examples import OneRank, Ranks


class _Sliceable(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


Rows = TypeVar("Rows", bound=_Sliceable)
"""A sequence, an array or a tensor; its first axis is the rows."""

_TIMEOUT = timedelta(minutes=5)
"""For a rank whose machine vanished; one that ends on a machine that lives is noticed at once. Well above the waits for
logits and the publishing of a version, during which the others stand still."""


class Exchange(Ranks, Protocol):
    """The ranks of one learner. Each computes a part of the rows; the parts in the order of ranks are all rows."""

    def own(self, rows: Rows) -> Rows:
        """This rank's part of B rows: b = B / ranks, rounded up or down."""
        ...

    def whole(self, own: Sequence[Tensor], count: int) -> list[Tensor]:
        """Each tensor [b, ...] with the rows of all ranks [B = `count`, ...]; they have one shape and type."""
        ...

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Each tensor summed over the ranks, bit-equal on all of them; they have one type."""
        ...

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - the flag is all that there is
        """Whether the flag is set on any rank."""
        ...

    def is_abandoned(self) -> bool:
        """Whether what started the ranks has ended, so that nobody can stop them any more."""
        ...


class Alone(OneRank):
    """The only rank: all rows are its own."""

    def own(self, rows: Rows) -> Rows:
        """All of them."""
        return rows

    def whole(self, own: Sequence[Tensor], count: int) -> list[Tensor]:  # noqa: ARG002 - Exchange's signature
        """The tensors as they are."""
        return list(own)

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors as they are."""
        return tensors

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - Exchange's signature
        """The flag itself."""
        return flag

    def is_abandoned(self) -> bool:
        """Never: it was not started by another process."""
        return False


ALONE = Alone()


class Gloo:
    """A rank of torch.distributed's default group. GraftError when another one ended or does not answer.

    All is made of one operation, a sum over the ranks: rows and bytes are summed with the zeros of the others. Tensors
    on a GPU go through host memory.
    """

    def __init__(self) -> None:
        self.rank, self.ranks = dist.get_rank(), dist.get_world_size()
        self._parent = os.getppid()

    def own(self, rows: Rows) -> Rows:
        """See Exchange."""
        own: Rows = rows[self._part(len(rows))]
        return own

    def whole(self, own: Sequence[Tensor], count: int) -> list[Tensor]:
        """See Exchange."""
        (whole_XB,) = self.sum(_padded(torch.stack(list(own)), self._part(count), count))
        return list(whole_XB.unbind())

    def sum(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See Exchange."""
        together = torch.cat([tensor.flatten() for tensor in tensors])
        total = self._all_reduce(together.cpu()).to(together.device)
        parts = torch.split(total, [tensor.numel() for tensor in tensors])
        return tuple(part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True))

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - Exchange's signature
        """See Exchange."""
        return bool(self._all_reduce(torch.tensor([flag], dtype=torch.int64)))

    def is_abandoned(self) -> bool:
        """See Exchange."""
        return os.getppid() != self._parent

    def gather(self, messages: Sequence[bytes]) -> list[list[bytes]]:
        """See Ranks."""
        own = b"".join(len(message).to_bytes(8, "little") + message for message in messages)
        size_R = torch.zeros(self.ranks, dtype=torch.int64)
        size_R[self.rank] = len(own)
        ends = [0, *self._all_reduce(size_R).cumsum(0).tolist()]
        data = np.zeros(ends[-1], np.uint8)
        data[ends[self.rank] : ends[self.rank + 1]] = np.frombuffer(own, np.uint8)
        if len(data):
            self._all_reduce(torch.from_numpy(data))
        return [list(_messages(data[first:last].tobytes())) for first, last in pairwise(ends)]

    def _part(self, count: int) -> slice:
        return slice(count * self.rank // self.ranks, count * (self.rank + 1) // self.ranks)

    def _all_reduce(self, tensor: Tensor) -> Tensor:
        """`tensor` itself, summed in place."""
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            raise GraftError(
                f"rank {self.rank} of {self.ranks}: another rank ended or did not answer within "
                f"{_TIMEOUT.total_seconds():g} s; its log says why ({first_line(error)})"
            ) from error
        return tensor


@contextmanager
def open_exchange(environment: Mapping[str, str] = os.environ) -> Iterator[Exchange]:
    """The rank that torchrun started this process as, once all have met; alone in a process that it did not start."""
    if not {"RANK", "WORLD_SIZE"} <= environment.keys() or environment["WORLD_SIZE"] == "1":
        yield ALONE
        return
    try:
        store, rank, ranks = next(rendezvous("env://", timeout=_TIMEOUT))
        # torchrun keeps its store when it restarts the ranks: under one name they may find the addresses of dead ones.
        of_attempt = PrefixStore(f"graft-{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("gloo", timeout=_TIMEOUT, store=of_attempt, rank=rank, world_size=ranks)
    except (RuntimeError, ValueError) as error:
        raise GraftError(
            f"rank {environment['RANK']} of {environment['WORLD_SIZE']}: the ranks did not meet; "
            f"start them with torchrun ({first_line(error)})"
        ) from error
    try:
        yield Gloo()
    finally:
        dist.destroy_process_group()


def nearest_device(environment: Mapping[str, str] = os.environ) -> torch.device:
    """The GPU of this rank, where CUDA sees one; else the CPU. CUDA_VISIBLE_DEVICES="" hides the GPUs."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(environment.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _padded(own_XB: Tensor, part: slice, count: int) -> Tensor:
    padded_XB = own_XB.new_zeros((len(own_XB), count, *own_XB.shape[2:]))
    padded_XB[:, part] = own_XB
    return padded_XB


def _messages(data: bytes) -> Iterator[bytes]:
    first = 0
    while first < len(data):
        first += 8
        last = first + int.from_bytes(data[first - 8 : first], "little")
        yield data[first:last]
        first = last
