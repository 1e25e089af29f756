"""The findings as Markdown tables."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from lab.machine import MACHINE
from lab.study.findings import SERVED, TEACHER_AS_INPUT, Findings
from lab.study.intervals import Interval
from student.evaluate.arms import CONTROL, STUDENT, TEACHER

_NONE = "-"
_ARMS = STUDENT, CONTROL, TEACHER


def origin(findings: Findings, command: str) -> str:
    """What made the tables: command, version of graft, machine, and the seeds of each variant."""
    of: dict[int, list[str]] = {}
    for variant in findings.grid.variants:
        of.setdefault(findings.seeds(variant.name), []).append(variant.name)
    seeds = "; ".join(f"{count} of {', '.join(names)}" for count, names in sorted(of.items(), reverse=True))
    return f"`{command}`\n\ngraft {version('graft')}; {MACHINE}. Seeds from 1 on: {seeds}."


def tables(findings: Findings) -> str:
    """All tables: the headline, by traffic, and one for each question of the grid."""
    sections = [*_headline(findings), *_traffic(findings), *_questions(findings)]
    return "\n\n".join(sections) + "\n"


def _headline(findings: Findings) -> Iterator[str]:
    header = ["examples", STUDENT, CONTROL, "student - control", TEACHER, TEACHER_AS_INPUT]
    header += ["student - teacher as input", "transferability", "permuted - control"]
    for task in findings.binary:
        best = ["best possible, whole stream"] if task in findings.best_auc else []
        for title, prefix in (("row by row", ""), ("served, each prediction made when its impression came", SERVED)):
            yield f"### Headline: AUC of `{task}`, {findings.grid.baseline}, {title}"
            parts = [f"{prefix}{part}" for part in ("all", *findings.parts())]
            yield _table(header + best, (_headline_row(findings, task, part) for part in parts))


def _headline_row(findings: Findings, task: str, part: str) -> list[str]:
    base, as_input = findings.grid.baseline, findings.teacher_as_input
    student, control, teacher = (_mean(findings.mean(base, part, task, arm)) for arm in _ARMS)
    share = findings.transferability(part, task)
    row = [
        *(part.removeprefix(SERVED), student, control, gain_text(findings.gain(base, part, task)), teacher),
        _mean(findings.mean(as_input, part, task, STUDENT)),
        gain_text(findings.gain(base, part, task, (as_input, STUDENT))),
        _NONE if share is None else f"{share:.1f}",
        gain_text(findings.gain(findings.permuted, part, task)),
    ]
    if task in findings.best_auc:
        row.append(f"{findings.best_auc[task]:.4f}" if part.removeprefix(SERVED) == "all" else _NONE)
    return row


def _traffic(findings: Findings) -> Iterator[str]:
    names = [name for name, sizes in findings.traffic.items() if sizes]
    sizes = sorted({size for sizes in findings.traffic.values() for size in sizes})
    for task in findings.tasks:
        for title, part in (
            ("the last 20 % of the log, after N examples", "held out after {}"),
            ("progressive, the first N examples", "first {}"),
            ("progressive, new items of the first N examples", "first {}, new items"),
        ):
            rows = [_traffic_row(findings, names, part.format(size), task.name, size) for size in sizes]
            if any(cell != _NONE for row in rows for cell in row[1:]):
                yield f"### Traffic: `{task.name}`, {title}"
                yield _table(["N", *names], rows)


def _traffic_row(findings: Findings, variants: Sequence[str], part: str, task: str, size: int) -> list[str]:
    return [f"{size:,}", *(_compared(findings, variant, part, task) for variant in variants)]


def _compared(findings: Findings, variant: str, part: str, task: str) -> str:
    alone = findings.mean(variant, part, task, "regression")
    if alone is None and findings.variant(variant).teacher_as_input:
        alone = findings.mean(variant, part, task, STUDENT)
    if alone:
        return _mean(alone)
    student, control = (findings.mean(variant, part, task, arm) for arm in (STUDENT, CONTROL))
    if student is None:
        return _NONE
    return f"{_mean(student)} / {_mean(control)}, {gain_text(findings.gain(variant, part, task))}"


def _questions(findings: Findings) -> Iterator[str]:
    questions = dict.fromkeys(v.question for v in findings.grid.variants if v.question)
    for question in questions:
        variants = [v for v in findings.grid.variants if question == v.question]
        events = variants[0].events
        yield f"### {question} ({events or findings.grid.events or findings.results[0].examples:,} examples)"
        header = ["variant", "seeds"]
        for task in findings.tasks:
            score = "AUC" if task.kind == "binary" else "RMSE"
            header += [f"{task.name}, {score}: student / control / teacher", "student - control", "new items"]
        rows = [_question_row(findings, v.name, "all") for v in variants if v.name != findings.grid.baseline]
        first = _question_row(findings, findings.grid.baseline, findings.baseline_part(events))
        yield _table(header, [first, *rows])


def _question_row(findings: Findings, name: str, part: str) -> list[str]:
    row = [f"**{name}** {findings.variant(name).says}".strip(), str(findings.seeds(name))]
    for task in findings.tasks:
        row.append(" / ".join(_mean(findings.mean(name, part, task.name, arm)) for arm in _ARMS))
        row += [gain_text(findings.gain(name, slice_, task.name)) for slice_ in (part, f"{part}, new items")]
    return row


def gain_text(gain: Interval | None) -> str:
    """``+.012 [.008, .016]``; in bold where the interval holds no 0."""
    if gain is None:
        return _NONE
    if gain.seeds == 1:
        return f"{gain.mean:+.4f}"
    text = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"**{text}**" if gain.excludes_zero else text


def _mean(value: Interval | None) -> str:
    return _NONE if value is None else f"{value.mean:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
