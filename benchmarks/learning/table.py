"""The printed table, and what benchmarks/results keeps."""

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning.rows import Bench, Measured
from lab.page import MACHINE

WHOLE, BARE = "whole learner", "bare torch.nn and torch.optim steps"


def report(bench: Bench, measured: Mapping[str, Sequence[Measured]]) -> None:
    config = bench.setup.student
    speeds, cpu = median_speeds(measured), median_cpu(measured)
    whole = speeds[WHOLE]
    print(f"{bench.project.name}: {len(bench.records):,} examples, {len(bench.setup.tasks)} tasks, ", end="")
    print(f"{len(bench.setup.distillation)} distilled, {config.micro_batch} new and ", end="")
    print(
        f"{config.replay_batches * config.micro_batch} replayed rows a step; {cpu_name()}, torch {torch.__version__}\n"
    )
    print(f"| learns | examples/s | the whole learner is | CPU us an example | progressive AUC of `{bench.task}` |")
    print("|---|---|---|---|---|")
    for name, turns in measured.items():
        aucs = ", ".join(f"{arm} {auc:.3f}".strip() for arm, auc in turns[0].auc.items() if auc is not None)
        print(f"| {name} | {speeds[name]:,.0f} | {whole / speeds[name]:.2f} x | {cpu[name]:.0f} | {aucs} |")


def median_speeds(measured: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """Examples a second by the clock."""
    return {name: statistics.median(m.examples / m.spent.wall for m in turns) for name, turns in measured.items()}


def median_cpu(measured: Mapping[str, Sequence[Measured]]) -> dict[str, float]:
    """Microseconds of CPU time an example."""
    return {name: statistics.median(1e6 * m.spent.cpu / m.examples for m in turns) for name, turns in measured.items()}


def result(bench: Bench, measured: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """What benchmarks/results keeps."""
    speeds, cpu = median_speeds(measured), median_cpu(measured)
    rounds = len(measured[WHOLE])
    return {
        "examples_per_second": round(speeds[WHOLE]),
        "over_bare_step": round(speeds[WHOLE] / speeds[BARE], 3),
        "auc": {name: dict(turns[0].auc) for name, turns in measured.items() if any(turns[0].auc.values())},
        "speeds": {name: round(speed) for name, speed in speeds.items()},
        "cpu_us_per_example": {name: round(us) for name, us in cpu.items()},
        "command": f"python -m benchmarks.learning --project PAIR --events {len(bench.records)} --rounds {rounds}",
        "project": bench.project.name,
        "machine": f"{MACHINE}, {cpu_name()}, torch {torch.__version__}",
        "load_average": os.getloadavg()[0],
    }


def cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
