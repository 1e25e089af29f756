"""A study from an example log to what its cells have found; `graft study` and the demo's report are made of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from features.repo.store import known_ids, view_sources
from features.spec import FeatureSpec
from graft.progress import Advance
from graft.project import Project
from lab.pairs.project_folder import TRUTH
from lab.study.findings.comparison import Comparison, OfCell
from lab.study.findings.findings import SERVED, Findings
from lab.study.grid import Grid
from lab.study.learners.cell import Predictions
from lab.study.learners.plan import Keys, cells_of
from lab.study.learners.teachers import DayZero
from lab.study.learners.worker import Workplace, run_cells
from lab.study.log.memory_store import NO_REDIS, Sources
from lab.study.log.study_log import StudyLog, read_log

OTHER_CUT_OFF = "other_cut_off"
"""The variant that is the baseline, but with the logits of examples before `teacher.trained_until`, or without them
where the project uses them."""


def with_other_cut_off(grid: Grid, project: Project, log: StudyLog) -> Grid:
    """The grid with `OTHER_CUT_OFF`, where the log has examples before the teacher's training data end."""
    if project.teacher is None or not before_cut_off(project, log):
        return grid
    baseline = next(variant for variant in grid.variants if variant.name == grid.baseline)
    teacher = baseline.tables.get("teacher", {})
    changed = {**teacher, "use_before_trained_until": not project.needed_teacher.use_before_trained_until}
    words = "without" if project.needed_teacher.use_before_trained_until else "with"
    other = baseline.model_copy(
        update={
            "name": OTHER_CUT_OFF,
            "says": f"{words} the logits of examples before teacher.trained_until",
            "question": "The teacher's own examples",
            "tables": {**baseline.tables, "teacher": changed},
        }
    )
    return grid.model_copy(update={"variants": [*grid.variants, other]})


def before_cut_off(project: Project, log: StudyLog) -> int:
    """How many of the log's examples come before `teacher.trained_until`."""
    from_ms = project.needed_teacher.model_copy(update={"use_before_trained_until": False}).logits_from_ms
    return sum(time_ms < from_ms for time_ms in log.event_times_ms)


def left_of_the_gain(findings: Findings, project: Project, log: StudyLog) -> list[str]:
    """For each task the baseline's gain with and without the logits of the teacher's own examples."""
    moment = project.teacher.trained_until if project.teacher else None
    if moment is None or OTHER_CUT_OFF not in {variant.name for variant in findings.grid.variants}:
        return []
    names = [findings.grid.baseline, OTHER_CUT_OFF]
    with_them, without = reversed(names) if not project.needed_teacher.use_before_trained_until else names
    first = (
        f"{before_cut_off(project, log):,} of {len(log.records):,} examples come before teacher.trained_until, "
        f"{moment.isoformat()}: the teacher may have been trained on them. '{findings.grid.baseline}' learns "
        f"{'nothing of the teacher from them' if with_them == OTHER_CUT_OFF else 'from the teacher all the same'}; "
        "without them no learner begins with a bootstrap, which would know the teacher before that moment."
    )
    lines = [first]
    for task in findings.tasks:
        for way, part in (("row by row", "all"), ("served", f"{SERVED}all")):
            whole, rest = (findings.gain(name, part, task.name) for name in (with_them, without))
            if whole is None or rest is None:
                continue
            share = f", {rest.mean / whole.mean:.0%} of it" if whole.mean > 0 else ""
            lines.append(
                f"`{task.name}`, {way}: student - control = {whole.mean:+.4f} with the logits of these examples, "
                f"{rest.mean:+.4f} without them{share}."
            )
    return lines


class Studied(NamedTuple):
    """What the cells of a grid have found."""

    log: StudyLog
    """The examples that the baseline has learnt."""
    comparison: Comparison
    predictions: OfCell
    of_cut_off: list[str]
    """Sentences on what is left of the gain without the logits of the teacher's own examples."""

    @property
    def findings(self) -> Findings:
        """All scores."""
        return self.comparison.findings


def studied(
    grid: Grid,
    project: Project,
    spec: FeatureSpec,
    log_folder: Path,
    *,
    out: Path,
    jobs: int,
    advance: Advance,
) -> Studied:
    """Learn an example log with every cell of the grid, `jobs` at a time, and compare what they predicted.

    `out` keeps what is finished. ConfigurationError names each variant that does not fit.
    """
    # 1. What can be wrong is found first.
    cells_of(grid, project, spec)
    # 2. The log, and what is known before it begins.
    log = read_log(log_folder, spec, grid.log_events)
    grid = with_other_cut_off(grid, project, log)
    cells = cells_of(grid, project, spec)
    day_zero = day_zero_of(project, spec, log)
    # 3. Every learner learns it.
    place = Workplace(log_folder, spec, day_zero, Keys(log, day_zero), out, grid.log_events)
    results = run_cells(cells, place, jobs, advance)
    # 4. What they have found.
    findings = Findings(grid, project.tasks, results, _best_auc(project), has_teacher=project.teacher is not None)
    of_cell = {(cell.variant.name, cell.seed): cell for cell in cells if cell.share == 1}

    def predictions(variant: str, seed: int) -> Predictions | None:
        cell = of_cell.get((variant, seed))
        return cell and place.predictions(cell)

    learnt = log.first(findings.examples())
    comparison = Comparison(findings, learnt, predictions)
    return Studied(learnt, comparison, predictions, left_of_the_gain(findings, project, learnt))


def sampled(log: StudyLog) -> list[str]:
    """Sentences on a log that has a share of the negatives only, or drawn ones; none on another."""
    lines, stand_for = [], sum(example.weight for example in log.examples)
    if stand_for > len(log.records):
        lines.append(
            f"The log was sampled: its {len(log.records):,} examples stand for {stand_for:,} impressions. Learners, "
            "plain models and scores weigh them so. Shares of the users and other label delays have running aggregates "
            "of what there is."
        )
    if log.drawn:
        lines.append(
            f"Of the {len(log.records):,} examples {log.drawn:,} are negatives that were drawn and that nobody was "
            "shown: **every AUC here is one against drawn negatives**, which says how well positives are told from "
            "these, and nothing of an AUC among what is shown. docs/sampling.md says what each recipe fakes."
        )
    return lines


def sources_of(project: Project) -> Sources:
    """The project's batch tables."""
    views = view_sources(project.repo, NO_REDIS)
    return Sources({view: (t.path, t.join_key, t.timestamp_field) for view, t in views.tables.items()}, views.pushed)


def day_zero_of(project: Project, spec: FeatureSpec, log: StudyLog) -> DayZero:
    """What the tables know when the first impression comes."""
    begin_ms = min(log.event_times_ms)
    until = datetime.fromtimestamp(begin_ms / 1000, UTC)
    return DayZero(sources_of(project), *known_ids(project.repo, NO_REDIS, spec, until), begin_ms)


def _best_auc(project: Project) -> dict[str, float]:
    """The AUC of the true probabilities by task, which a simulated pair knows; empty for another one."""
    try:
        best: dict[str, float] = json.loads((project.folder / TRUTH).read_text("utf-8"))["best_auc"]
    except FileNotFoundError:
        return {}
    return best
