"""Where a study's logits come from, and what is left of the gain without those of the teacher's own examples."""

from graft.project import Project
from lab.study.findings import SERVED, Findings
from lab.study.grid import Grid
from lab.study.study_log import StudyLog
from lab.study.teachers import told_of

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


def origin_of_logits(grid: Grid, project: Project, log: StudyLog) -> list[str]:
    """Sentences on where the baseline's logits come from; none where all are scored with the teacher's file."""
    baseline = next(variant for variant in grid.variants if variant.name == grid.baseline)
    told = [one for one in told_of(baseline.teacher, project, log) if one is not None]
    if log.logged is None or not told:
        return []
    missed = sum(one.logits is None for one in told)
    count = len(log.records)
    others = f"; those of the other {count - len(told):,} are scored with the teacher's file" * (len(told) < count)
    line = (
        f"Teacher's logits: {len(told):,} of {count:,} examples have what their learner used, from the log "
        f"(generation {log.logged.generation}), which was none for {missed:,} of them{others}. Variants with another "
        "teacher, shares of the users and features of another label delay are scored with the file."
    )
    return [line]


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
