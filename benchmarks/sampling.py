"""What a learner loses that has only a share of the negatives, and whether its probabilities stay those of the log.

    python benchmarks/sampling.py [--project PAIR] [--events N] [--rare N] [--one-of 2,5,10] [--seeds 3]

Each learner learns its part of the log with the teacher's logits; all predict every example of the whole log before it
is learnt, or passed over. So AUC and calibration (mean prediction over share of positives) are those of the whole log,
whatever a learner has seen. Of each seed other negatives are kept. The learners:

    1 of N              what [sampling] does: a negative of N, which counts N times
    1 of N, unweighted  each counts once: the log odds are too high, by ln N with one binary task
    1 of N, scaled      as weighed, all weights divided so that the kept rows count together as the rows that they are
                        worth (Kish 1965: sum of weights squared, over the sum of squares)
    as many rows        the same number of rows as `1 of N`, of positives and negatives alike: what fewer rows cost

`less` is the AUC of the whole log's learner less that of the row, with an interval over draws of the users. The pairs
have more positives than most surfaces: with `--rare N` only one of N of them is in the log that is called whole.
"""

import argparse
import json
from collections.abc import Callable, Sequence
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
from lab.study.user_bootstrap import UserBootstrap
from stream.events import Example, TeacherRequest
from stream.sampling import is_drawn
from student.evaluate.arms import ARMS, CONTROL, STUDENT
from student.evaluate.metrics import exact_auc
from student.learn.batch import encoded, hashes
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


Weigh = Callable[[Example, int, int], float]
"""As how many rows a learner takes an example, 0 for one that it does not learn: of the example, 1 if it is a negative,
and the seed."""
Values = NDArray[np.float32]
"""What was said of N examples, before each was learnt [N, K, A]."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    parser.add_argument("--events", type=int, help="only the first N examples")
    parser.add_argument("--rare", type=int, default=1, help="one positive of so many is in the log")
    parser.add_argument("--one-of", default="2,5,10", help="one negative of so many is kept, of each learner")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pair = with_rare_positives(load(load_project(options.project), options.events), options.rare)
    print(f"{pair.project.name}: {len(pair.examples):,} examples, {negatives_of(pair).sum():,} negatives", flush=True)
    print(
        "| learner | task, arm | "
        + " | ".join(Quality._fields)
        + " | less | its interval | late | its interval |\n"
        + "|---" * 10
        + "|"
    )
    seeds = range(1, options.seeds + 1)
    whole = [values_of(pair, lambda *_: 1.0, seed) for seed in seeds]
    found = {"whole log": tell(pair, "whole log", whole, whole)}
    for one_of in map(int, options.one_of.split(",")):
        for name, weigh in learners(pair, one_of).items():
            found[name] = tell(pair, name, [values_of(pair, weigh, seed) for seed in seeds], whole)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def learners(pair: Pair, one_of: int) -> dict[str, Weigh]:
    """By name."""
    negatives, rows = int(negatives_of(pair).sum()), len(pair.examples)
    kept, positives = negatives / one_of, rows - negatives
    scale = (positives + negatives) / (positives + kept * one_of**2)  # sum of weights over the sum of their squares
    share = (positives + kept) / rows

    def weighted(example: Example, is_negative: int, seed: int) -> float:
        return (one_of if is_kept(example, one_of, seed) else 0.0) if is_negative else 1.0

    def unweighted(example: Example, is_negative: int, seed: int) -> float:
        return min(1.0, weighted(example, is_negative, seed))

    def scaled(example: Example, is_negative: int, seed: int) -> float:
        return scale * weighted(example, is_negative, seed)

    def as_many(example: Example, _: int, seed: int) -> float:
        return float(is_kept(example, 1 / share, seed))

    return {
        f"1 of {one_of}": weighted,
        f"1 of {one_of}, unweighted": unweighted,
        f"1 of {one_of}, scaled": scaled,
        f"as many rows as 1 of {one_of}": as_many,
    }


def is_kept(example: Example, one_of: float, seed: int) -> bool:
    """Each seed draws by other ids."""
    return is_drawn(f"{seed}/{example.impression_id}", one_of)


def negatives_of(pair: Pair) -> NDArray[np.bool_]:
    """Which examples have no 1 in any binary task [N]."""
    binary = [task.name for task in pair.setup.tasks if task.kind == "binary"]
    return np.array([not any(example.labels[name] for name in binary) for example in pair.examples])


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
    negative_N = negatives_of(pair)
    rows = [n for n, e in enumerate(pair.examples) if negative_N[n] or is_drawn(f"rare/{e.impression_id}", one_of)]
    return pair._replace(examples=[pair.examples[n] for n in rows], logit_NT=pair.logit_NT[rows])


def values_of(pair: Pair, weigh: Weigh, seed: int) -> Values:
    """Of a learner that takes the examples as `weigh` says."""
    setup = replace(pair.setup, student=pair.setup.student.model_copy(update={"seed": seed}))
    learner, parts, negative_N = Learner(setup), list[Values](), negatives_of(pair)
    for first in range(0, len(pair.examples), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        examples, logit_BT = pair.examples[rows], pair.logit_NT[rows]
        item_B = hashes("item_id", [e.item_id for e in examples])
        parts.append(learner.predictions(encoded(setup, examples, logit_BT), item_B))
        weights = [weigh(e, int(negative), seed) for e, negative in zip(examples, negative_N[rows], strict=True)]
        kept = [n for n, weight in enumerate(weights) if weight]
        if kept:
            learnt = [examples[n].model_copy(update={"weight": weights[n]}) for n in kept]
            learner.learn(learnt, logit_BT[kept])
    return np.concatenate(parts)


def tell(pair: Pair, name: str, seeds: Sequence[Values], whole: Sequence[Values]) -> dict[str, Any]:
    """Print and give what a learner's values are worth, by task and arm; the mean of the seeds."""
    users, found = UserBootstrap([example.user_id for example in pair.examples]), dict[str, Any]()
    for k, task in enumerate(pair.setup.tasks):
        if task.kind != "binary":
            continue
        label_N = np.array([example.labels[task.name] for example in pair.examples], np.float32)
        for arm in (STUDENT, CONTROL):
            a = ARMS.index(arm)
            mean = Quality(*np.mean([judged(label_N, of[:, k, a]) for of in seeds], axis=0).tolist())
            less = [less_of(users, label_N, seeds, whole, (k, a), late=late) for late in (False, True)]
            found[f"{task.name} {arm}"] = {**mean._asdict(), "less": less[0], "late_less": less[1]}
            cells = [f"{value:.4f}" for value in mean]
            cells += [cell for low, middle, high in less for cell in (f"{middle:.4f}", f"{low:.4f} to {high:.4f}")]
            print(f"| {name} | {task.name} {arm} | " + " | ".join(cells) + " |", flush=True)
    return found


def less_of(
    users: UserBootstrap,
    label_N: NDArray[np.float32],
    seeds: Sequence[Values],
    whole: Sequence[Values],
    of: tuple[int, int],
    *,
    late: bool,
) -> tuple[float, float, float]:
    """How much less AUC than the whole log's learner: 2.5 % of the draws, the log itself, 97.5 %."""
    member_N = np.arange(len(label_N)) >= (len(label_N) // 2 if late else 0)
    auc_2SR = [
        [users.scores("binary", label_N, one[:, *of], member_N) for one in learner] for learner in (whole, seeds)
    ]
    mean_R = np.subtract(*np.mean(auc_2SR, axis=1))
    low, high = np.quantile(mean_R[1:], [0.025, 0.975])
    return float(low), float(mean_R[0]), float(high)


def judged(label_N: NDArray[np.float32], logit_N: NDArray[np.float32]) -> Quality:
    share_N = 1 / (1 + np.exp(-logit_N.astype(np.float64)))
    late = slice(len(label_N) // 2, None)
    aucs = (exact_auc(label_N[part], logit_N[part]) or np.nan for part in (slice(None), late))
    levels = (share_N[part].sum() / label_N[part].sum() for part in (slice(None), late))
    return Quality(*aucs, *levels)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
