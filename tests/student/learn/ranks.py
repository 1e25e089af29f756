"""Starts the ranks of one exchange as torchrun would: each a process with its place in the environment."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.embedded import free_port
from tests.forked import start_forked

ROOT = Path(__file__).parents[3]
TORCHRUN = str(Path(sys.executable).with_name("torchrun"))


def start_ranks(count: int, argv: Sequence[str], stderr: int | None = None) -> list[Any]:
    """`python -m ARGV`, a program of `tests.forked`, in `count` processes."""
    meeting = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [
        start_forked(
            argv,
            env={**rank_environment(), **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
        for rank in range(count)
    ]


def rank_environment() -> Mapping[str, str]:
    """This process's own, with one thread for each rank."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def all_end_well(ranks: Sequence[Any], seconds: float) -> None:
    """Wait for all of them; AssertionError for an exit code that is not 0."""
    try:
        assert [rank.wait(seconds) for rank in ranks] == [0] * len(ranks)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
