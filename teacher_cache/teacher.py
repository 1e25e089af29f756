"""The teacher, used exactly as it is: it takes named tensors and gives one logit per row and task.

Shapes: B rows, T teacher tasks in the order of `TeacherConfig.tasks`, n elements of a wide input.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from runtime.errors import InvalidInputError
from teacher_cache.config import TeacherTask, TeacherVector

_BUSY = Counter(
    "graft_teacher_busy_seconds", "Seconds spent in calls of the teacher; the rate is the share of the time it works."
)


class TensorSpec(NamedTuple):
    """One tensor of B rows: `dtype` (object holds strings) and the elements of one row."""

    dtype: np.dtype[Any]
    width: int


class TeacherOutputError(InvalidInputError):
    """Rows without usable outputs: the text names the first one, `rows` has all of them, at least one.

    The other rows can be scored without them. `reason` holds for each of them alone.
    """

    def __init__(self, message: str, rows: Sequence[int], reason: str) -> None:
        self.rows, self.reason = tuple(rows), reason
        super().__init__(message)


def name_faults(tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector]) -> Iterator[str]:
    """Each name that stands for two outputs, with its key in graft.toml."""
    names = [task.name for task in tasks] + [vector.name for vector in vectors]
    for n, name in enumerate(names):
        if name in names[:n]:
            is_task = n < len(tasks)
            key = f"tasks.{n}" if is_task else f"vectors.{n - len(tasks)}"
            other = "an earlier task" if is_task else "another output"
            yield f"teacher.{key}.name: {name!r} stands for {other} already; names must differ"


class Teacher(Protocol):
    """Scores rows of the target domain; its weights never change."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Every tensor that `score` needs."""

    def score(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Finite logits (binary) or values in the label's unit (regression), [B, T].

        A row that the teacher does not have is NaN in all tasks: a dump may lack rows, and no other kind does.
        `inputs` has every tensor of `self.inputs`, [B] where its width is 1 and else [B, n]; B >= 1.
        TeacherOutputError: rows whose output is not finite, or that the teacher cannot compute. TeacherUnavailableError
        when the call failed for another reason, such as want of memory or a server that is away.
        """

    @property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Of each task and vector, by its name, the shape of one row: () of a task, (n,) of a vector."""

    def describe(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """As `score`, by name: of each task [B], and of each vector [B, n]."""


@contextmanager
def counted_as_busy() -> Iterator[None]:
    """Count the time of the block as the teacher's, for each kind of teacher and also when the call fails."""
    started = time.monotonic()
    try:
        yield
    finally:
        _BUSY.inc(time.monotonic() - started)


class ServerAccess(NamedTuple):
    """What a process needs to reach a teacher's server, beside graft.toml.

    `token_file`: a file with a bearer token; None: no token. `ca_file`: the certificates (PEM) that vouch for the
    server; None: those of the system.
    """

    token_file: Path | None = None
    ca_file: Path | None = None
