"""A study from an example log to what its cells have found; `graft study` and the demo's report are made of it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from features.entities import known_ids
from features.spec import FeatureSpec
from features.store import view_sources
from graft.progress import Advance
from graft.project import Project
from lab.pairs.project_folder import TRUTH
from lab.study.cell import Predictions
from lab.study.comparison import Comparison, OfCell
from lab.study.day_zero import DayZero
from lab.study.findings import Findings
from lab.study.grid import Grid
from lab.study.keys import Keys
from lab.study.memory_store import NO_REDIS, Sources
from lab.study.plan import cells_of
from lab.study.run import run_cells
from lab.study.study_log import StudyLog, read_log
from lab.study.teacher_logits import left_of_the_gain, origin_of_logits, with_other_cut_off
from lab.study.workplace import Workplace
from stream.log.logit_file import list_logit_files
from teacher_cache.cache.generation import generation_of


class Studied(NamedTuple):
    """What the cells of a grid have found."""

    log: StudyLog
    """The examples that the baseline has learnt."""
    comparison: Comparison
    predictions: OfCell
    of_logits: list[str]
    """Sentences on where the baseline's logits come from."""

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
    generation = logged_generation(project, spec, log_folder)
    log = read_log(log_folder, spec, generation, grid.log_events)
    grid = with_other_cut_off(grid, project, log)
    cells = cells_of(grid, project, spec)
    day_zero = day_zero_of(project, spec, log)
    # 3. Every learner learns it.
    place = Workplace(log_folder, spec, day_zero, Keys(log, day_zero), out, generation, grid.log_events)
    results = run_cells(cells, place, jobs, advance)
    # 4. What they have found.
    findings = Findings(grid, project.tasks, results, _best_auc(project), has_teacher=project.teacher is not None)
    of_cell = {(cell.variant.name, cell.seed): cell for cell in cells if cell.share == 1}

    def predictions(variant: str, seed: int) -> Predictions | None:
        cell = of_cell.get((variant, seed))
        return cell and place.predictions(cell)

    learnt = log.first(findings.examples())
    comparison = Comparison(findings, learnt, predictions)
    of_logits = [*origin_of_logits(grid, project, learnt), *left_of_the_gain(findings, project, learnt)]
    return Studied(learnt, comparison, predictions, of_logits)


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


def logged_generation(project: Project, spec: FeatureSpec, log_folder: Path) -> str | None:
    """Of the project's logits, where the log has logits; None where it has none."""
    if project.teacher is None or not list_logit_files(log_folder):
        return None
    return generation_of(project.name, project.teacher, project.folder, spec).digest


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
