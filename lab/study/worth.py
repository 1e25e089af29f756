"""What a better domain map and more data are worth: what each input of the teacher adds, and what more users add."""

from collections.abc import Iterator, Mapping, Sequence

from lab.study.claims import WORTH, Judge, control_of
from lab.study.comparison import Comparison, Difference, student_of
from lab.study.findings import SERVED, Findings, Series
from lab.study.teacher_inputs import InputUse
from stream.tasks import TaskSpec
from student.evaluate.arms import STUDENT

_SELDOM = 0.02  # of the rows: an input that takes its default in fewer of them is mapped well


def added_by_inputs(comparison: Comparison, task: TaskSpec) -> dict[str, Difference]:
    """By input how much better the student is with it than with its default, served; the largest first.

    Of the inputs that the grid has a variant for: one that changes nothing but this input.
    """
    student, found = student_of(comparison.findings), {}
    for variant in comparison.findings.grid.variants:
        if len(variant.teacher.defaulted) == 1 and variant.name != student.variant:
            other = Series(variant.name, variant.name, STUDENT)
            better = comparison.difference(student, other, "all", task, served=True)
            if better is not None:
                found[variant.teacher.defaulted[0]] = better
    return dict(sorted(found.items(), key=lambda one: -one[1].mean))


def default_is_better(comparison: Comparison) -> list[str]:
    """The inputs with which the student of the first task is worse than with their default."""
    added = added_by_inputs(comparison, comparison.findings.tasks[0])
    return [name for name, better in added.items() if better.sign < 0]


def map_sentences(judge: Judge, inputs: Sequence[InputUse]) -> Iterator[str]:
    """What the inputs add, and what it may be worth to feed them in more rows."""
    added = added_by_inputs(judge.comparison, judge.task)
    if not added:
        return
    words = {1: "the student is better with", 0: "nothing is shown for", -1: "it is worse with"}
    told = [
        f"{says} {', '.join(f'`{name}` ({better.text()})' for name, better in added.items() if better.sign == sign)}"
        for sign, says in words.items()
        if any(better.sign == sign for better in added.values())
    ]
    yield f"What the teacher's inputs add, served, to what it says with their default: {'; '.join(told)}."
    gaps = [
        f"`{one.name}` has its default in {100 * one.fell_back:.0f} % of the rows, which may be worth about "
        f"{worth:+.4f} more if they gain as the others do"
        for one, worth in _gaps(added, inputs)
    ]
    unfed = [f"`{one.name}`" for one in inputs if one.fell_back == 1]
    if unfed:
        gaps.append(f"no feature feeds {', '.join(unfed)}, and what these would add is not known")
    yield f"A better map: {'; '.join(gaps) or 'the inputs that were compared are fed in nearly all rows'}."


def _gaps(added: Mapping[str, Difference], inputs: Sequence[InputUse]) -> Iterator[tuple[InputUse, float]]:
    """The inputs that help and are not fed in some rows, and what these may be worth."""
    for one in inputs:
        if one.name in added and added[one.name].sign > 0 and _SELDOM < one.fell_back < 1:
            yield one, added[one.name].mean * one.fell_back / (1 - one.fell_back)


def data_sentences(judge: Judge, inputs: Sequence[InputUse]) -> Iterator[str]:
    """What more users are worth, beside a better map, and what is left of the gain as the log grows."""
    findings = judge.comparison.findings
    found = [told for share in findings.shares() if (told := _of_share(findings.at(share), judge))]
    if len(found) > 1:
        yield f"More data: the student's served {judge.measure} is {'; '.join(found)}.{_worth_more(judge, inputs)}"
    if findings.has_teacher:
        parts = {part: judge.against(control_of(judge.comparison), part) for part in findings.parts()}
        gains = [f"{one.better.mean:+.4f} on examples {part}" for part, one in parts.items() if one]
        if len(gains) > 1:
            yield f"As the log goes on the teacher gives, served, {', '.join(gains)}."


def _worth_more(judge: Judge, inputs: Sequence[InputUse]) -> str:
    """Whether more users or a better map is worth more; nothing where the map was not looked at."""
    findings, added = judge.comparison.findings, added_by_inputs(judge.comparison, judge.task)
    few, whole = (_score(findings.at(share), judge) for share in (findings.shares()[0], 1.0))
    if not added or few is None or whole is None:
        return ""
    users = whole - few if judge.task.kind == "binary" else few - whole
    fed = sum(worth for _, worth in _gaps(added, inputs))
    least = WORTH * (1 if judge.task.kind == "binary" else whole)
    both = (
        f"more users ({users:+.4f} from {_percent(findings.shares()[0])} of them to all)",
        f"a better map of these inputs ({fed:+.4f})",
    )
    if max(users, fed) < least:
        return f" Neither {both[0]} nor {both[1]} is worth much."
    first, second = both if users >= fed else reversed(both)
    return f" {first.capitalize()} may be worth more than {second}."


def _of_share(findings: Findings, judge: Judge) -> str:
    score, gain = _score(findings, judge), findings.gain(findings.grid.baseline, f"{SERVED}all", judge.task.name)
    if score is None:
        return ""
    with_teacher = f" (the teacher gives {gain.mean:+.4f})" if gain and findings.has_teacher else ""
    return f"{score:.4f} with {_percent(findings.share)} of the users{with_teacher}"


def _score(findings: Findings, judge: Judge) -> float | None:
    """The student's, served."""
    score = findings.mean(findings.grid.baseline, f"{SERVED}all", judge.task.name, STUDENT)
    return score and score.mean


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
