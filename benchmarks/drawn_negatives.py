"""What each recipe of drawn negatives makes of a log of positives alone, judged by what was really shown.

    python benchmarks/drawn_negatives.py [--project PAIR] [--events N] [--same FEATURE]

A pair's log knows what was shown and not taken. Here that is forgotten: the impressions without a 1 in the first binary
task are left out of the events, which are joined with negatives drawn by each recipe. A learner without a teacher (the
control) learns all but the last fifth, by time. `own` is its AUC against its own negatives, row by row; `shown` its AUC
on the last fifth of the whole log, positives against what was shown; `popularity` is that of counts alone, in the same
two ways. Features that count examples are hidden: they would know what a log of positives cannot.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from features.spec import FeatureSpec
from features.store import compile_spec
from graft.project import Project, load_project
from lab.study.hidden_features import HiddenFeatures
from lab.study.log_in_memory import records_of
from lab.study.memory_store import NO_REDIS
from lab.study.studied import sources_of
from lab.study.study_log import StudyLog
from stream.event_file import read_events
from stream.events import Example
from stream.sampling import SamplingConfig
from student.evaluate.arms import ARMS, CONTROL
from student.evaluate.metrics import exact_auc
from student.learn.batch import encoded, hashes
from student.learn.learner import Learner

DEFAULT_PROJECT = Path(__file__).parent.parent / "fixtures" / "simulated"
NEGATIVES = 4
HELD_OUT = 0.2


class Found(NamedTuple):
    """AUCs of the learner and of counts of positives; of what was shown also the calibration."""

    own: float
    shown: float
    popularity_own: float
    popularity_shown: float
    calibration: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=DEFAULT_PROJECT)
    parser.add_argument("--events", type=int, help="only the first N examples of the whole log")
    parser.add_argument("--same", default="track:style", help="the category of `drawn_from_same`")
    options = parser.parse_args()
    torch.set_num_threads(1)
    project = load_project(options.project)
    spec = compile_spec(project.repo, NO_REDIS, project.features)
    whole = joined(project, spec, project.event_file, options.events)
    with tempfile.TemporaryDirectory() as folder:
        positives = positives_of(project, whole, Path(folder) / "events.jsonl")
        taken = len(ids_of_positives(project, whole))
        print(f"{project.name}: {len(whole.records):,} impressions, of which {taken:,} taken")
        print("| recipe | " + " | ".join(Found._fields) + " |\n" + "|---" * (1 + len(Found._fields)) + "|")
        tell("the whole log, nothing drawn", found(project, whole, whole))
        for sampling in recipes(options.same):
            drawn = joined(project.model_copy(update={"sampling": sampling}), spec, positives)
            tell(sampling.recipe, found(project, drawn, whole))


def recipes(same: str) -> list[SamplingConfig]:
    """Each draws as many."""
    return [
        SamplingConfig(drawn_negatives=NEGATIVES),
        SamplingConfig(drawn_negatives=NEGATIVES, drawn_by_popularity=0.75),
        SamplingConfig(drawn_negatives=NEGATIVES, drawn_by_popularity=1.0),
        SamplingConfig(drawn_negatives=NEGATIVES, drawn_from_same=same),
    ]


def joined(project: Project, spec: FeatureSpec, events: Path, count: int | None = None) -> StudyLog:
    """The log of an event file, with the features that count examples hidden."""
    sources = sources_of(project)
    records = list(islice(records_of(project, spec, sources, events, lambda *_: None), count))
    return HiddenFeatures(spec, sorted(set(sources.pushed.values()))).of_log(StudyLog(spec, records))


def ids_of_positives(project: Project, whole: StudyLog) -> set[str]:
    """The impressions with a 1 in the first binary task."""
    return {example.impression_id for example in whole.examples if example.labels[task_of(project)]}


def task_of(project: Project) -> str:
    """The first binary task."""
    return next(task.name for task in project.tasks if task.kind == "binary")


def positives_of(project: Project, whole: StudyLog, file: Path) -> Path:
    """The events of the positives alone, as a file."""
    kept = {one.encode() for one in ids_of_positives(project, whole)}
    events = (event for event in read_events(project.event_file) if event.key in kept)
    lines = [json.dumps({"type": event.kind, **json.loads(event.value)}) for event in events]
    file.write_text("\n".join(lines) + "\n")
    return file


def found(project: Project, log: StudyLog, whole: StudyLog) -> Found:
    """A learner of a log, judged."""
    cut = whole.examples[round((1 - HELD_OUT) * len(whole.records))].event_time_ms
    setup = project.learner_setup(log.spec)
    k, a = [task.name for task in setup.tasks].index(task_of(project)), ARMS.index(CONTROL)
    learner, learnt = Learner(setup), [example for example in log.examples if example.event_time_ms < cut]
    for first in range(0, len(learnt), 64):
        part = learnt[first : first + 64]
        learner.learn(part, np.full((len(part), len(setup.teacher_tasks)), np.nan, np.float32))
    own = learner.evaluation.whole()[task_of(project)][CONTROL]
    later = [example for example in whole.examples if example.event_time_ms >= cut]
    batch = encoded(setup, later, np.full((len(later), len(setup.teacher_tasks)), np.nan, np.float32))
    logit_B = learner.predictions(batch, hashes("item_id", [e.item_id for e in later]))[:, k, a]
    label_B = batch.label_BK[:, k]
    return Found(
        own.auc_against_drawn or own.auc or np.nan,
        exact_auc(label_B, logit_B) or np.nan,
        popularity_auc(task_of(project), learnt, learnt),
        popularity_auc(task_of(project), learnt, later),
        float((1 / (1 + np.exp(-logit_B))).sum() / label_B.sum()),
    )


def popularity_auc(task: str, learnt: Sequence[Example], judged: Sequence[Example]) -> float:
    """Of the number of an item's positives, before each row where the rows are those that are counted."""
    counts, score = Counter[object](), list[float]()
    if judged is not learnt:
        counts.update(example.item_id for example in learnt if example.labels[task])
    for example in judged:
        score.append(counts[example.item_id])
        if judged is learnt and example.labels[task]:
            counts[example.item_id] += 1
    label_B = np.array([example.labels[task] for example in judged], np.float32)
    return exact_auc(label_B, np.array(score, np.float32)) or np.nan


def tell(name: str, one: Found) -> None:
    print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in one) + " |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
