"""The findings as Markdown tables."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import product

from lab.page import MACHINE
from lab.study.findings.findings import FEWEST_SEEDS, PERMUTED, SERVED, Findings, Interval, Series
from lab.study.findings.headline import JUDGED, Calibration, harm_of_permuted
from lab.study.grid import PLAIN_VARIANT
from lab.study.learners.plain_models import LR_TEACHER, PLAIN_MODELS, SAYS
from lab.study.log.slices import EARLY, NEW_ITEMS, NEW_USERS
from student.evaluate.arms import CONTROL, STUDENT, TEACHER

_NONE = "-"
_ARMS = STUDENT, CONTROL, TEACHER
_WAYS = ("row by row", ""), ("served", SERVED)


def origin(findings: Findings, command: str) -> str:
    """What made the tables: command, version of graft, machine, the seeds of each variant, when labels are known."""
    of: dict[int, list[str]] = {}
    for variant in findings.grid.variants:
        of.setdefault(findings.seeds(variant.name), []).append(variant.name)
    seeds = "; ".join(f"{count} of {', '.join(names)}" for count, names in sorted(of.items(), reverse=True))
    return (
        f"`{command}`\n\ngraft {version('graft')}; {MACHINE}. Seeds from 1 on: {seeds}. Intervals are Student's, 95 %, "
        f"over the seeds, in bold where they hold no 0; below {FEWEST_SEEDS} seeds there is none. *Row by row*: each "
        f"prediction knows all labels before it. *Served*: it knows those that were known when its impression came, "
        f"{findings.grid.label_delay_seconds:,.0f} s, or at the close of the longest window, after theirs.\n\n"
        "Plain models, which have no seed: "
        f"{'; '.join(f'`{name}`: {says}' for name, says in SAYS.items())}."
    )


def tables(findings: Findings, calibrated: Sequence[Calibration]) -> str:
    """All tables: the headline, calibration, thin logs, and one for each question of the grid."""
    sections = [*_headline(findings), *_harm(findings), *_calibrations(calibrated)]
    sections += [*_thin(findings), *_questions(findings)]
    return "\n\n".join(sections) + "\n"


def _headline(findings: Findings) -> Iterator[str]:
    """For each task what every series scores in each slice, and how much better the student is."""
    parts = ["all", *(f"all, {new}" for new in (NEW_ITEMS, NEW_USERS)), EARLY, *findings.parts()]
    for task in findings.tasks:
        best = ["best possible, whole stream"] if task.name in findings.best_auc else []
        for way, prefix in _WAYS:
            title = f"`{task.name}`, {findings.grid.baseline}, {way}"
            yield f"### Headline: {findings.measure(task.name)} of {title}"
            header = ["examples", *(series.name for series in findings.series()), *best]
            yield _table(header, (_scores_row(findings, task.name, f"{prefix}{part}") for part in parts))
            others = [series for series in findings.series() if (series.name, series.variant) != _judged(findings)]
            others = [series for series in others if series.name != PERMUTED]
            yield f"### Headline: the student better by, {title}"
            header = ["examples", *(f"than {series.name}" for series in others), "transferability"]
            yield _table(header, (_better_row(findings, task.name, f"{prefix}{part}", others) for part in parts))


def _judged(findings: Findings) -> tuple[str, str]:
    return STUDENT, findings.grid.baseline


def _scores_row(findings: Findings, task: str, part: str) -> list[str]:
    name = part.removeprefix(SERVED)
    row = [name, *(_mean(findings.mean(s.variant, part, task, s.arm)) for s in findings.series())]
    if task in findings.best_auc:
        row.append(f"{findings.best_auc[task]:.4f}" if name == "all" else _NONE)
    return row


def _better_row(findings: Findings, task: str, part: str, others: Sequence[Series]) -> list[str]:
    base = findings.grid.baseline
    gains = [findings.gain(base, part, task, (series.variant, series.arm)) for series in others]
    share = findings.transferability(part, task)
    return [part.removeprefix(SERVED), *map(gain_text, gains), _NONE if share is None else f"{share:.1f}"]


def _harm(findings: Findings) -> Iterator[str]:
    """What a permuted teacher costs."""
    if findings.permuted is None:
        return
    parts = ["all", EARLY, *findings.parts()]
    yield "### A permuted teacher: its student - control, row by row"
    yield _table(["task", *parts, "worst window"], (_harm_row(findings, task.name, parts) for task in findings.tasks))


def _harm_row(findings: Findings, task: str, parts: Sequence[str]) -> list[str]:
    harm = harm_of_permuted(findings, task)
    gains = [gain_text(findings.gain(findings.permuted, part, task)) for part in parts]
    return [task, *gains, _NONE if harm is None else f"{-harm[0]:+.4f}"]


def _calibrations(calibrated: Sequence[Calibration]) -> Iterator[str]:
    if not calibrated:
        return
    yield "### Calibration, and the scores of rows whose user and item had never come"
    arms = [f"{what}, {arm}" for what in ("ECE", "unseen: min / 1 % / median / 99 % / max") for arm in JUDGED]
    yield _table(["task", "", "unseen rows", *arms], map(_calibration_row, calibrated))


def _calibration_row(found: Calibration) -> list[str]:
    ranges = [" / ".join(f"{score:.3f}" for score in found.unseen[arm].values()) for arm in found.unseen]
    errors = [f"{found.ece[arm]:.4f}" for arm in JUDGED]
    way = _WAYS[found.served][0]
    return [found.task, way, f"{found.unseen_rows:,}", *errors, *(ranges or [_NONE] * len(JUDGED))]


def _thin(findings: Findings) -> Iterator[str]:
    """By the share of the users whose examples were learnt: what the baseline and the plain models score."""
    found = [findings.at(share) for share in findings.shares()]
    arms = [(arm, findings.grid.baseline) for arm in _ARMS] + [(arm, PLAIN_VARIANT) for arm in PLAIN_MODELS]
    header = ["users", "draws", "examples", *(arm for arm, _ in arms), "student - control", f"student - {LR_TEACHER}"]
    for task, (way, prefix) in product(findings.tasks if found else (), _WAYS):
        yield f"### Thin logs: {findings.measure(task.name)} of `{task.name}`, {findings.grid.baseline}, {way}"
        yield _table(header, (_thin_row(thin, task.name, f"{prefix}all", arms) for thin in found))


def _thin_row(findings: Findings, task: str, part: str, arms: Sequence[tuple[str, str]]) -> list[str]:
    base = findings.grid.baseline
    counts = [result.examples for result in findings.results if result.variant == base]
    return [
        f"{100 * findings.share:g} %",
        str(len(counts)) if findings.share < 1 else _NONE,
        f"{sum(counts) / max(1, len(counts)):,.0f}",
        *(_mean(findings.mean(variant, part, task, arm)) for arm, variant in arms),
        gain_text(findings.gain(base, part, task)),
        gain_text(findings.gain(base, part, task, (PLAIN_VARIANT, LR_TEACHER))),
    ]


def _questions(findings: Findings) -> Iterator[str]:
    """For each question and task every variant that asks it: its gain, and how much better each of its arms is."""
    base = findings.grid.baseline
    than = [f"{arm} - {base}'s{way}" for arm in (STUDENT, CONTROL) for way in ("", ", served")]
    for question in dict.fromkeys(v.question for v in findings.grid.variants if v.question):
        variants = [v for v in findings.grid.variants if question == v.question]
        examples = f"{findings.grid.events or findings.results[0].examples:,} examples"
        for task in findings.tasks:
            yield f"### {question}: {findings.measure(task.name)} of `{task.name}` ({examples})"
            header = ["variant", "seeds", "student / control / teacher", "student - control", EARLY, *than]
            names = [base, *(v.name for v in variants if v.name != base)]
            yield _table(header, (_question_row(findings, name, task.name) for name in names))


def _question_row(findings: Findings, name: str, task: str) -> list[str]:
    base = findings.grid.baseline
    slices = product((STUDENT, CONTROL), ("all", f"{SERVED}all"))
    better = [findings.better((name, arm), (base, arm), slice_, task) for arm, slice_ in slices]
    return [
        f"**{name}** {findings.variant(name).says}".strip(),
        str(findings.seeds(name)),
        " / ".join(_mean(findings.mean(name, "all", task, arm)) for arm in _ARMS),
        *(gain_text(findings.gain(name, slice_, task)) for slice_ in ("all", EARLY)),
        *([_NONE] * len(better) if name == base else map(gain_text, better)),
    ]


def gain_text(gain: Interval | None) -> str:
    """``+.012 [.008, .016]``; in bold where the interval holds no 0."""
    if gain is None:
        return _NONE
    if not gain.is_known:
        return f"{gain.mean:+.4f}"
    text = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"**{text}**" if gain.excludes_zero else text


def _mean(value: Interval | None) -> str:
    return _NONE if value is None else f"{value.mean:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
