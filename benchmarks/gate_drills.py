"""How soon the gate stops a stream that has gone wrong, and how often one that has not.

    python benchmarks/gate_drills.py [--seeds 10] [--clean 200] [--json FILE] [--plot FILE]

The learner, its publisher and the gate in memory, on the simulated pair's world: a version after every 250 examples,
labels known an hour after their impression, which is 700 impressions later. From example 10,000 on a fault, in all rows
or in one of twenty: clicks inverted; the click, or the dwell, in a column that had no values until then; dense features
times 10 (the learner leaves out what is times 100); a teacher that says noise.
Each seed is another world. `examples` are those of the fault that had been learnt when the gate stopped; `AUC` is that
of what serves at the end, after 20,000 examples, on 5,000 further impressions without a fault.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from features.spec import Feature, FeatureSpec
from lab.machine import MACHINE
from lab.pairs.simulated.target import Impressions, simulate_target
from lab.pairs.simulated.world import COUNTRIES, DEVICES, MAX_SECONDS, STYLES, World, chance
from lab.pictures import COLOURS, INK, save, style
from stream.events import Example
from stream.tasks import TaskSpec
from student.evaluate.gate import Gate
from student.evaluate.metrics import exact_auc
from student.evaluate.served import ServedEvaluation
from student.evaluate.served_versions import ServedVersions
from student.learn.config import DistillationConfig, PublishConfig
from student.learn.learner import Learner
from student.learn.publishing import Publisher
from student.learn.setup import LearnerSetup
from student.versions.config import StudentConfig
from student.versions.gate import GateConfig, verdict_of
from student.versions.names import Reference
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry
from teacher_cache.config import TeacherTask

EXAMPLES, FAULT_AT, PUBLISH_EVERY, JUDGED = 20_000, 10_000, 250, 5_000
USERS, ITEMS = 600, 400
SCALE = 10
NO_TEMPO = 120.0
FAULTS = ("inverted", "leaked click", "leaked dwell", "scaled", "noise")
SHARES = (1.0, 0.05)


def _feature(name: str, source: Any, role: Any, dtype: Any, default: Any) -> Feature:
    return Feature(name=name, source=source, role=role, dtype=dtype, default=default)


SETUP = LearnerSetup(
    spec=FeatureSpec(
        feast_project="drill",
        user_join_key="u",
        item_join_key="i",
        user_id_type="int",
        item_id_type="int",
        entity_key_serialization_version=3,
        features=(
            _feature("age", "user", "dense", "float", 43.0),
            _feature("tempo", "item", "dense", "float", NO_TEMPO),
            _feature("sound", "item", "embedding", "float_list", [0.0] * 4),
            _feature("user_id", "user_id", "categorical", "int", None),
            _feature("item_id", "item_id", "categorical", "int", None),
            _feature("country", "user", "categorical", "str", None),
            _feature("style", "item", "categorical", "str", None),
            _feature("context:device", "context", "categorical", "str", None),
        ),
    ),
    tasks=(
        TaskSpec(name="click", kind="binary", window_seconds=3_600),
        TaskSpec(name="dwell", kind="regression", window_seconds=3_600),
    ),
    distillation=(
        DistillationConfig(teacher_task="play", student_task="click"),
        DistillationConfig(teacher_task="watch", student_task="dwell"),
    ),
    teacher_tasks=(
        TeacherTask(name="play", kind="binary", output="play"),
        TeacherTask(name="watch", kind="regression", output="watch"),
    ),
    student=StudentConfig(table_rows=4_096, remembered_ids=2_000),
    wait_seconds=0.0,
)


class Log(NamedTuple):
    """The examples of a stream, the last `JUDGED` of which are never learnt, and the teacher's logits of each."""

    examples: list[Example]
    logit_NT: NDArray[np.float32]


class Run(NamedTuple):
    """What became of a stream. `stopped_after`: examples since the fault, or since the start without one."""

    verdict: str | None
    metric: str | None
    stopped_after: int | None
    served_auc: float
    newest_auc: float
    promotions: int


class NoTopic:
    """Takes offsets and forgets them."""

    def lag(self) -> int:
        """Nothing waits."""
        return 0

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Nothing is kept."""


def log_of(seed: int) -> Log:
    """A clean stream of a world of its own."""
    world = World(seed)
    works, listeners = world.works(ITEMS), world.people(USERS)
    rows = simulate_target(world, works, listeners, np.arange(ITEMS), EXAMPLES + JUDGED)
    taste, character = listeners.taste_UK[rows.user], works.character_IK[rows.track]
    taught = world.affinity(taste, character, works.source_quality[rows.track], rows.device)
    logit_NT = np.stack([taught, MAX_SECONDS * chance(taught)], axis=1).astype(np.float32)
    columns = (
        listeners.age[rows.user].astype(float).tolist(),
        works.tempo[rows.track].tolist(),
        works.sound_IK[rows.track].tolist(),
        [COUNTRIES[c] for c in listeners.country[rows.user]],
        [STYLES[s] for s in works.style[rows.track]],
    )
    return Log([_example(rows, n, *(column[n] for column in columns)) for n in range(len(rows.user))], logit_NT)


def _example(
    rows: Impressions, n: int, age: float, tempo: float, sound: list[float], country: str, style: str
) -> Example:
    user, item, device = int(rows.user[n]), int(rows.track[n]), DEVICES[rows.device[n]]
    clicked = bool(rows.click[n])
    return Example(
        impression_id=f"s{n}",
        user_id=user,
        item_id=item,
        event_time_ms=int(rows.time_ms[n]),
        context={},
        spec_id=SETUP.spec.spec_id,
        features=[age, tempo, sound, user, item, country, style, device],
        labels={"click": float(clicked), "dwell": float(rows.dwell_seconds[n]) if clicked else None},
    )


def with_fault(log: Log, fault: str, share: float, seed: int) -> Log:
    """The log with a fault in a share of the examples from `FAULT_AT` on, as far as they are learnt."""
    random = np.random.default_rng(seed)
    struck = np.arange(FAULT_AT, EXAMPLES)[random.random(EXAMPLES - FAULT_AT) < share]
    examples, logit_NT = list(log.examples), log.logit_NT.copy()
    if fault == "noise":
        logit_NT[struck] = random.normal(logit_NT.mean(0), logit_NT.std(0), (len(struck), 2))
        return Log(examples, logit_NT)
    dwells = [float(e.labels["dwell"]) for e in examples[:FAULT_AT] if e.labels["dwell"] is not None]
    if fault.startswith("leaked"):
        examples[:FAULT_AT] = [_with_tempo(one, NO_TEMPO) for one in examples[:FAULT_AT]]
    for n in struck.tolist():
        was = examples[n]
        click, dwell = was.labels["click"], was.labels["dwell"]
        if fault == "inverted":
            examples[n] = was.model_copy(update={"labels": {**was.labels, "click": 1 - float(click or 0)}})
        elif fault == "scaled":
            age, tempo, sound, *others = cast("tuple[Any, ...]", tuple(was.features))
            scaled = [SCALE * age, SCALE * tempo, [SCALE * s for s in sound], *others]
            examples[n] = was.model_copy(update={"features": scaled})
        elif fault == "leaked click":
            examples[n] = _with_tempo(was, NO_TEMPO + 20 * float(click or 0))
        else:  # where nobody stays: how long somebody else did, so that it does not tell of the click
            examples[n] = _with_tempo(was, NO_TEMPO + 10 * float(random.choice(dwells) if dwell is None else dwell))
    return Log(examples, logit_NT)


def _with_tempo(example: Example, tempo: float) -> Example:
    age, _, *others = example.features
    return example.model_copy(update={"features": [age, tempo, *others]})


def drill(seed: int, fault: str | None, share: float, config: GateConfig) -> Run:
    """Learn a stream and say what the gate did."""
    torch.set_num_threads(1)
    clean = log_of(seed)
    log = with_fault(clean, fault, share, seed) if fault else clean
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        with threadpool_limits(1):
            return _drilled(log, clean, Registry(folder), config, FAULT_AT if fault else 0)
    finally:
        shutil.rmtree(folder)


def _drilled(log: Log, clean: Log, registry: Registry, config: GateConfig, fault_at: int) -> Run:
    gate = Gate(SETUP.tasks, SETUP.spec, config, registry)
    served = ServedEvaluation(SETUP.tasks, ServedVersions(registry), gate)
    learner = Learner(SETUP, served=served)
    publisher = Publisher(learner, served, {}, registry, PublishConfig(every_seconds=1e9, keep=2), "drill")
    stopped: tuple[str, str, int] | None = None
    promotions = 0
    for first in range(0, EXAMPLES, PUBLISH_EVERY):
        rows = slice(first, first + PUBLISH_EVERY)
        learner.learn(log.examples[rows], log.logit_NT[rows])
        publisher.learnt({0: rows.stop})
        publisher.publish_if_new(NoTopic())
        record = registry.load_manifest(str(registry.latest())).gate
        assert record is not None
        promotions += record.verdict == "promote" and not stopped
        if stopped is None and record.stopped:
            verdict, decisive = verdict_of(record)
            assert decisive is not None
            stopped = verdict, f"{decisive.task} {decisive.metric}", rows.stop - fault_at
            if not fault_at:
                break
    return Run(
        stopped[0] if stopped else None,
        stopped[1] if stopped else None,
        stopped[2] if stopped else None,
        _auc(registry, str(registry.champion()), clean),
        _auc(registry, str(registry.latest()), clean),
        promotions,
    )


def _auc(registry: Registry, reference: str, log: Log) -> float:
    student = NumpyStudent(*registry.load_model(Reference(reference).version))
    examples = log.examples[EXAMPLES:]
    score_B = student.score(SETUP.spec.encode(SETUP.spec.columns_of([e.features for e in examples])))["click"]
    auc = exact_auc(np.array([e.labels["click"] for e in examples], np.float32), score_B)
    assert auc is not None
    return auc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="of each fault")
    parser.add_argument("--clean", type=int, default=200, help="seeds without a fault")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--plot", type=Path, help="where to draw it")
    options = parser.parse_args()
    drills = [(fault, share) for fault in FAULTS for share in SHARES]
    jobs = [(seed, fault, share) for fault, share in drills for seed in range(options.seeds)]
    jobs += [(seed, None, 0.0) for seed in range(options.clean)]
    config = GateConfig()
    with ProcessPoolExecutor(options.workers) as pool:
        runs = []
        for job, run in zip(jobs, pool.map(partial(_job, config), jobs), strict=True):
            runs.append(run)
            print(*job, *run, file=sys.stderr, flush=True)
    by: dict[tuple[str | None, float], list[Run]] = {}
    for (_, fault, share), run in zip(jobs, runs, strict=True):
        by.setdefault((fault, share), []).append(run)
    rows = [_row(fault, share, found) for (fault, share), found in by.items()]
    for row in rows:
        print(json.dumps(row))
    if options.json:
        command = f"python benchmarks/gate_drills.py --seeds {options.seeds} --clean {options.clean}"
        options.json.write_text(json.dumps({"command": command, "machine": MACHINE, "drills": rows}, indent=2) + "\n")
    if options.plot:
        plot(rows, options.plot)


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """How many examples each drill ran until it was stopped, and what then served; a PNG."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    stopped, served = figure.subplots(1, 2, sharey=True)
    names = [f"{row['fault']}, {row['share']:.0%}" if row["share"] else "no fault" for row in rows]
    for place, row in enumerate(rows):
        stopped.plot(row["examples"], [place] * len(row["examples"]), "o", color=COLOURS["student"], alpha=0.6)
        if open_ := row["seeds"] - row["stopped"]:
            stopped.annotate(
                f"{open_} of {row['seeds']} not stopped", (EXAMPLES - FAULT_AT, place), ha="right", va="center"
            )
        served.plot([row["newest_auc"]], [place], "x", color=INK, label=None if place else "newest version")
        served.plot([row["served_auc"]], [place], "o", color=COLOURS["student"], label=None if place else "what serves")
    stopped.set_yticks(range(len(names)), names)
    stopped.invert_yaxis()
    stopped.set_xlim(0, EXAMPLES - FAULT_AT)
    style(stopped, "how long until the gate stops it", "examples since the fault", grid="x")
    style(served, "what serves at the end", "AUC of click, without the fault", grid="x")
    served.legend(frameon=False)
    save(figure, path)


def _job(config: GateConfig, job: tuple[int, str | None, float]) -> Run:
    return drill(*job, config)


def _row(fault: str | None, share: float, runs: Sequence[Run]) -> dict[str, Any]:
    after = sorted(run.stopped_after for run in runs if run.stopped_after is not None)
    told = [f"{run.verdict}: {run.metric}" for run in runs if run.verdict]
    return {
        "fault": fault or "none",
        "share": share,
        "seeds": len(runs),
        "stopped": len(after),
        "examples": after,
        "median_examples": statistics.median(after) if after else None,
        "by": {one: told.count(one) for one in sorted(set(told))},
        "served_auc": round(statistics.mean(run.served_auc for run in runs), 4),
        "newest_auc": round(statistics.mean(run.newest_auc for run in runs), 4),
        "promotions": round(statistics.mean(run.promotions for run in runs), 1),
    }


if __name__ == "__main__":
    main()
