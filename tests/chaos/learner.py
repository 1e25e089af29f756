"""`python -m tests.chaos.learner JOURNAL`: runs ``graft student train`` and keeps a journal of what it learns.

A learner's state is a function of its batches: which examples, in which order, with which teacher logits. Several
partitions of a growing log have no one order, and a logit may come too late for its example. So the journal says what
was learnt, and `undisturbed` learns the same once more, in one go.
"""

import base64
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from graft.cli import cli
from stream.events import Example
from student.learn.learner import Learner
from student.learn.process import train
from student.learn.setup import LearnerSetup


class LearntBatch(NamedTuple):
    """A micro-batch: how many examples were learnt before it, and the impression ids of its examples."""

    before: int
    impression_ids: list[str]
    logit_BT: NDArray[np.float32]


def batches_of(journal: Path) -> list[LearntBatch]:
    """What the last learner's state was made of: a restart undoes what was learnt after the version it goes on from."""
    learnt: list[LearntBatch] = []
    for batch in _read(journal):
        while learnt and learnt[-1].before >= batch.before:
            learnt.pop()
        learnt.append(batch)
    return learnt


def undisturbed(setup: LearnerSetup, batches: list[LearntBatch], examples: Mapping[str, bytes]) -> Learner:
    """A new learner that learns these batches; `examples` has the JSON of each by its impression id."""
    torch.set_num_threads(1)
    learner = Learner(setup)
    for batch in batches:
        rows = [Example.model_validate_json(examples[impression_id]) for impression_id in batch.impression_ids]
        learner.learn(rows, batch.logit_BT)
    return learner


def _read(journal: Path) -> Iterator[LearntBatch]:
    for line in journal.read_bytes().splitlines():
        try:
            fields = json.loads(line)
        except ValueError:  # a kill has cut it: its batch was not learnt
            continue
        logits = np.frombuffer(base64.b64decode(fields["logits"]), np.float32)
        ids = fields["impression_ids"]
        yield LearntBatch(fields["before"], ids, logits.reshape(len(ids), -1))


def _keep_journal(path: Path) -> None:
    """Write down each batch before it is learnt."""
    learn_part = train._Run._learn_part
    journal = path.open("ab", buffering=0)
    journal.write(b"\n")  # ends a line that a kill has cut

    def learn_and_tell(self: Any, records: Any, rows: Any, logit_BT: Any) -> None:
        learnt = [record.example for record, fault in zip(records, rows.faults, strict=True) if fault is None]
        if learnt:
            fields = {
                "before": self._learner.examples,
                "impression_ids": [example.impression_id for example in learnt],
                "logits": base64.b64encode(np.ascontiguousarray(logit_BT, np.float32).tobytes()).decode(),
            }
            journal.write(json.dumps(fields).encode() + b"\n")
        learn_part(self, records, rows, logit_BT)

    train._Run._learn_part = learn_and_tell  # type: ignore[method-assign]


if __name__ == "__main__":
    _keep_journal(Path(sys.argv[1]))
    cli(["student", "train"])
