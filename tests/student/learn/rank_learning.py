"""A learner that goes on from a given state.

As a program, on each rank: `python -m tests.student.learn.rank_learning FOLDER` reads FOLDER/NAME.safetensors for each
of `SETUPS` and writes FOLDER/NAME-RANK.safetensors, the state with its JSON.
"""

import atexit
import gc
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray

from stream.events import Example
from student.learn.exchange import ALONE, Exchange, open_exchange
from student.learn.learner import Learner
from tests.student.conftest import Toy

TOY = Toy()
SIZES = (8, 8, 1, 3, 8, 2, 5, 8)
"""Of what is learnt at a time."""
WARM_BATCHES = 40


SETUPS = {
    "soft_label": TOY.setup(),
    "cold": TOY.setup(),
    "odd values": TOY.setup(),
    "without replay": TOY.setup(student=TOY.student.model_copy(update={"replay_batches": 0})),
}


def learn_on(learner: Learner, name: str) -> None:
    """So many examples as `SIZES`, of a cold learner a first one alone.

    Its step leaves a rank without rows.
    """
    first = WARM_BATCHES * 8
    for size in (1,) if name == "cold" else SIZES:
        examples = [TOY.example(n) for n in range(first, first + size)]
        if name == "odd values":
            examples = [_odd(example) for example in examples]
            refuse_a_step(learner, examples)
        learner.learn(examples, TOY.logits(examples))
        first += size


def refuse_a_step(learner: Learner, examples: list[Example]) -> None:
    """Let the learner refuse a step that these examples fill, for a weight that is not finite."""
    if len(examples) < learner.room:
        return
    bias = learner.tensors()["student/weights/head.like.bias"]
    good = bias.copy()
    bias[:] = np.nan
    assert not learner.learn(examples, TOY.logits(examples))
    bias[:] = good


def _odd(example: Example) -> Example:
    """Every third example with a feature and a label beyond reason."""
    if int(example.impression_id[1:]) % 3:
        return example
    features, labels = [*example.features[:-1], 1e20], {**example.labels, "rating": 1e39}
    return example.model_copy(update={"features": features, "labels": labels})


def warm(name: str) -> Learner:
    """Where `learn_on` begins, learnt in one process."""
    learner = Learner(SETUPS[name])
    return learner if name == "cold" else TOY.learnt(learner, TOY.batches(WARM_BATCHES))


def restored(folder: Path, file: str, name: str, exchange: Exchange = ALONE) -> Learner:
    """The learner that `save` wrote, of the setup `name`."""
    tensors = safetensors.numpy.load_file(folder / f"{file}.safetensors")
    with safetensors.safe_open(folder / f"{file}.safetensors", "numpy") as opened:
        state = json.loads(opened.metadata()["state"])
    learner = Learner(SETUPS[name], exchange)
    learner.restore(tensors, state)
    return learner


def save(learner: Learner, folder: Path, file: str) -> None:
    """For `restored`."""
    state = {"state": json.dumps(learner.state())}
    safetensors.numpy.save_file(_contiguous(learner.tensors()), folder / f"{file}.safetensors", state)


def _contiguous(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}


def main() -> None:
    atexit.register(gc.freeze)  # ends as quickly as graft's own command
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with open_exchange() as exchange:
        for name in SETUPS:
            learner = restored(folder, name, name, exchange)
            learn_on(learner, name)
            save(learner, folder, f"{name}-{exchange.rank}")


if __name__ == "__main__":
    main()
