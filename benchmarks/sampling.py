"""What a learner loses that has only a share of the negatives, and whether its probabilities stay those of the log.

    python benchmarks/sampling.py [--project PAIR] [--events N] [--rare N] [--one-of 1,2,5,10] [--seeds 3]

Each learner learns its part of the log with the teacher's logits; all predict every example of the whole log before it
is learnt, or passed over. So AUC and calibration (mean prediction over share of positives) are those of the whole log,
whatever a learner has seen. `unweighted` is the fault that weights are there for: a fifth of the negatives, each of
which counts once. Of each seed other negatives are kept. The pairs have more positives than most surfaces: with
`--rare N` only one of N of them is in the log that is called whole.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from features.store import compile_spec, view_sources
from graft.progress import progress
from graft.project import Project, load_project
from lab.study.log_in_memory import records_of
from lab.study.memory_store import Sources
from stream.events import Example, TeacherRequest
from stream.sampling import Sampling, SamplingConfig, is_drawn
from student.evaluate.arms import ARMS, CONTROL, STUDENT
from student.evaluate.metrics import exact_auc
from student.learn.batch import encoded
from student.learn.learner import Learner
from student.learn.setup import LearnerSetup
from teacher_cache.domain_map import DomainMap
from teacher_cache.request_scorer import RequestScorer
from teacher_cache.teacher import load_teacher

DEFAULT_PROJECT = Path(__file__).parent.parent / "fixtures" / "simulated"
NO_REDIS = "redis://127.0.0.1:6379/0"  # part of Feast's configuration; nothing connects to it
AT_ONCE = 16
"""Examples that are predicted together, before those of them that are kept are learnt."""


class Pair(NamedTuple):
    """A pair's whole log: its examples in their order, and the teacher's logits of them."""

    project: Project
    setup: LearnerSetup
    examples: Sequence[Example]
    logit_NT: NDArray[np.float32]


class Quality(NamedTuple):
    """Of one arm on one binary task, over the whole log and over its second half."""

    auc: float
    late_auc: float
    calibration: float
    late_calibration: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    parser.add_argument("--events", type=int, help="only the first N examples")
    parser.add_argument("--rare", type=int, default=1, help="one positive of so many is in the log")
    parser.add_argument("--one-of", default="1,2,5,10", help="one negative of so many is kept, of each learner")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pair = with_rare_positives(load(load_project(options.project), options.events), options.rare)
    print(f"{pair.project.name}: {len(pair.examples):,} examples")
    print("| learner | task, arm | " + " | ".join(Quality._fields) + " | deviation of auc |\n" + "|---" * 7 + "|")
    found: dict[str, list[dict[str, Quality]]] = {}
    for one_of in map(int, options.one_of.split(",")):
        for name, weigh in {f"1 of {one_of}": True, f"1 of {one_of}, unweighted": False}.items():
            if weigh or one_of == 5:
                found[name] = [quality(pair, one_of, seed, weigh=weigh) for seed in range(1, options.seeds + 1)]
                tell(name, found)
    if options.json:
        options.json.write_text(json.dumps(result(found), indent=2) + "\n")


def load(project: Project, events: int | None) -> Pair:
    """The project's own events, joined as the stream joins them, and scored by its teacher."""
    spec, views = compile_spec(project.repo, NO_REDIS, project.features), view_sources(project.repo, NO_REDIS)
    sources = Sources({v: (t.path, t.join_key, t.timestamp_field) for v, t in views.tables.items()}, views.pushed)
    with progress("joining") as advance:
        joined = records_of(project, spec, sources, project.event_file, advance)
        examples = [record.example for record in islice(joined, events)]
    teacher = load_teacher(project.needed_teacher, project.folder)
    scorer = RequestScorer(teacher, DomainMap(project.needed_teacher, project.folder, teacher, spec), spec)
    fields = TeacherRequest.model_fields
    requests = [TeacherRequest.model_construct(**{name: getattr(e, name) for name in fields}) for e in examples]
    scored = scorer.score(requests)
    assert scored is not None
    assert len(scored.logit_BT) == len(examples)
    return Pair(project, project.learner_setup(spec), examples, scored.logit_BT)


def with_rare_positives(pair: Pair, one_of: int) -> Pair:
    """The pair with all negatives and one positive of so many."""
    binary = [task.name for task in pair.setup.tasks if task.kind == "binary"]
    rows = [
        n
        for n, example in enumerate(pair.examples)
        if is_drawn(f"rare/{example.impression_id}", one_of) or not any(example.labels[name] for name in binary)
    ]
    return pair._replace(examples=[pair.examples[n] for n in rows], logit_NT=pair.logit_NT[rows])


def quality(pair: Pair, one_of: int, seed: int, *, weigh: bool) -> dict[str, Quality]:
    """By ``task arm``."""
    student = pair.setup.student.model_copy(update={"seed": seed})
    setup = replace(pair.setup, student=student)
    keep = Sampling(SamplingConfig(one_negative_of=one_of), setup.tasks).kept
    learner, parts = Learner(setup), list[NDArray[np.float32]]()
    for first in range(0, len(pair.examples), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        examples, logit_BT = pair.examples[rows], pair.logit_NT[rows]
        parts.append(learner.predictions(encoded(setup, examples, logit_BT), [e.item_id for e in examples]))
        kept = list(drawn(examples, keep, seed))
        if kept:
            learnt = [example if weigh else example.model_copy(update={"weight": 1}) for _, example in kept]
            learner.learn(learnt, logit_BT[[n for n, _ in kept]])
    value_NKA = np.concatenate(parts)
    return {
        f"{task.name} {arm}": judged(pair, task.name, value_NKA[:, k, ARMS.index(arm)])
        for k, task in enumerate(setup.tasks)
        if task.kind == "binary"
        for arm in (STUDENT, CONTROL)
    }


def drawn(
    examples: Sequence[Example], keep: Callable[[Example], Example | None], seed: int
) -> Iterator[tuple[int, Example]]:
    """The places and the examples that are kept; each seed draws by other ids."""
    for n, example in enumerate(examples):
        renamed = example.model_copy(update={"impression_id": f"{seed}/{example.impression_id}"})
        if kept := keep(renamed):
            yield n, kept


def judged(pair: Pair, task: str, logit_N: NDArray[np.float32]) -> Quality:
    label_N = np.array([example.labels[task] for example in pair.examples], np.float32)
    share_N = 1 / (1 + np.exp(-logit_N.astype(np.float64)))
    late = slice(len(label_N) // 2, None)
    aucs = (exact_auc(label_N[part], logit_N[part]) or np.nan for part in (slice(None), late))
    levels = (share_N[part].sum() / label_N[part].sum() for part in (slice(None), late))
    return Quality(*aucs, *levels)


def result(found: dict[str, list[dict[str, Quality]]]) -> dict[str, Any]:
    return {name: [{of: one._asdict() for of, one in seed.items()} for seed in seeds] for name, seeds in found.items()}


def tell(name: str, found: dict[str, list[dict[str, Quality]]]) -> None:
    for of in found[name][0]:
        mean = [float(np.mean([seed[of][i] for seed in found[name]])) for i in range(len(Quality._fields))]
        spread = float(np.std([seed[of].auc for seed in found[name]]))
        told = dict(zip(Quality._fields, mean, strict=True))
        print(f"| {name} | {of} | " + " | ".join(f"{value:.4f}" for value in told.values()) + f" | {spread:.4f} |")


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
