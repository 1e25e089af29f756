"""The answer of a study in a few sentences, most of them on the first task: does the teacher help, and what to do."""

from collections.abc import Iterator, Mapping, Sequence

from lab.study.findings.comparison import (
    WHOM,
    WORTH,
    Against,
    Claim,
    Comparison,
    Difference,
    Judge,
    control_of,
    student_of,
)
from lab.study.findings.findings import SERVED, Findings, Series
from lab.study.learners.plain_models import BAYES_BIAS, LR, LR_TEACHER, ONLINE_LR
from lab.study.learners.teachers import InputUse
from stream.tasks import TaskSpec
from student.evaluate.arms import STUDENT, TEACHER

_MODEL_NAMES = {
    LR_TEACHER: "the regression with the teacher's logits",
    LR: "the regression",
    BAYES_BIAS: "Bayesian biases alone",
    ONLINE_LR: "online logistic regression",
}
_CHANCE = 0.02  # of an AUC: a teacher that is nearer to 0.5 does not order the rows of a task

_HELPS = {
    Claim.BETTER: "The teacher helps {}",
    Claim.SAME: "The teacher does not help {}",
    Claim.WORSE: "The teacher does not help {}, it does harm",
    Claim.UNKNOWN: "Whether the teacher helps {} cannot be told",
}
_HELPS_HERE = {
    Claim.BETTER: "it helps",
    Claim.SAME: "it does not help",
    Claim.WORSE: "it does harm",
    Claim.UNKNOWN: "it cannot be told",
}


def answer(comparison: Comparison, inputs: Sequence[InputUse] = ()) -> list[str]:
    """The sentences. `inputs`: what is known of the teacher's inputs."""
    first, *others = comparison.findings.tasks
    judge = Judge(comparison, first)
    told = [_helps(judge), *_for_whom(judge)] if comparison.findings.has_teacher else []
    told += [*_plain(judge), *map_sentences(judge, inputs), *data_sentences(judge, inputs)]
    if comparison.findings.has_teacher:
        told += [_helps(Judge(comparison, task)) for task in others]
    else:
        told += [sentence for task in others for sentence in _plain(Judge(comparison, task))]
    return [*told, *_advice(judge), _settings(comparison)]


def _helps(judge: Judge) -> str:
    """Whether the teacher helps a task, served, then row by row."""
    task, control = f"`{judge.task.name}`", control_of(judge.comparison)
    served, seen = (judge.against(control, served=way) for way in (True, False))
    if served is None or seen is None:
        return f"{task} cannot be judged: its labels are all the same, or there are none."
    why = f" ({judge.why_unknown})" if served.claim is Claim.UNKNOWN else ""
    here = "" if seen.claim is served.claim else f", where {_HELPS_HERE[seen.claim]}"
    gain = "better by" if served.claim is Claim.BETTER else "a gain of"
    return (
        f"{_HELPS[served.claim].format(task)}{why}. Served, the student's {judge.measure} is {served.student:.4f} with "
        f"it and {served.other:.4f} without: {gain} {served.text}. Row by row{here}: {seen.student:.4f} and "
        f"{seen.other:.4f}, {seen.text}."
    )


def _for_whom(judge: Judge) -> Iterator[str]:
    """For which part of the log the teacher helps, served."""
    control = control_of(judge.comparison)
    found = {name: judge.against(control, part) for part, name in WHOM.items()}
    known = {name: one for name, one in found.items() if one}
    if known:
        parts = [_of_claim(claim, known) for claim in Claim]
        yield f"For whom, served: {'; '.join(part for part in parts if part)}."


def _of_claim(claim: Claim, known: dict[str, Against]) -> str:
    told = [f"{name} ({one.text})" for name, one in known.items() if one.claim is claim]
    return f"{_HELPS_HERE[claim]} for {', '.join(told)}" if told else ""


def _plain(judge: Judge) -> Iterator[str]:
    """The student against the best model without a student, served, then row by row."""
    found = [_against_best(judge, served=served) for served in (True, False)]
    if all(found):
        yield f"Against the best plain model of `{judge.task.name}`: served, {found[0]}; row by row, {found[1]}."


def _against_best(judge: Judge, *, served: bool) -> str:
    known = {}
    for series in judge.comparison.findings.plain_models():
        against = judge.against(series, served=served)
        if against is not None:
            known[_MODEL_NAMES[series.name]] = against
    if not known:
        return ""
    best = max if judge.task.kind == "binary" else min
    name = best(known, key=lambda one: known[one].other)
    against = known[name]
    scores = f"{judge.measure} {against.student:.4f} and {against.other:.4f}, {against.text}"
    words = {
        Claim.BETTER: f"the student is better than {name}",
        Claim.SAME: f"the student is no better than {name}",
        Claim.WORSE: f"the student is worse than {name}",
        Claim.UNKNOWN: f"it cannot be told whether the student is better than {name}",
    }
    return f"{words[against.claim]} ({scores})"


def _advice(judge: Judge) -> Iterator[str]:
    """What to look at where the student is worse than it should be, served on the first task."""
    findings = judge.comparison.findings
    plain = [judge.against(series) for series in findings.plain_models() if series.name in {LR, LR_TEACHER}]
    if any(against and against.claim is Claim.WORSE for against in plain):
        yield (
            "A plain regression is better. Has features.categorical user_id and item_id, so that users and items are "
            "remembered, and is student.remembered_ids above their number? Are all dense columns numbers, not codes?"
        )
    alone = judge.against(Series(TEACHER, findings.grid.baseline, TEACHER)) if findings.has_teacher else None
    if alone is None:
        return
    if alone.claim is Claim.WORSE:
        yield (
            "The teacher alone is better than the student: not all that it knows reaches the student. Begin with "
            "'graft student bootstrap', add [[features.profiles]] of user and item, and give the task a "
            "[[distillation]] table with its student_task."
        )
    if judge.task.kind == "binary" and alone.other < 0.5 + _CHANCE:
        yield (
            f"The teacher's own AUC is {alone.other:.3f}: it does not order these rows, or the wrong way round. Do its "
            "logits belong to these ids, and is a logit one of the opposite?"
        )


def _settings(comparison: Comparison) -> str:
    """What to write into graft.toml; only what was compared."""
    changes = [f"`teacher.inputs.{name}` at its default" for name in default_is_better(comparison)]
    if comparison.findings.has_teacher:
        by_task = {task.name: _served_claim(comparison, task) for task in comparison.findings.tasks}
        first = by_task[comparison.findings.tasks[0].name]
        harmed = [f"`{name}`" for name, claim in by_task.items() if claim is Claim.WORSE]
        if Claim.BETTER in by_task.values() and not harmed:
            told = "keep [teacher] and [[distillation]] as they are"
        elif Claim.BETTER in by_task.values():
            told = f"keep [teacher], and remove the [[distillation]] tables of {', '.join(harmed)}"
        elif first in {Claim.UNKNOWN, None}:
            told = "nothing to change yet"
        else:
            told = (
                "look at teacher.inputs ('graft teacher explain' shows what the teacher sees of a row); if they are "
                "right, remove [teacher] and [[distillation]]"
            )
    else:
        told = "there is no [teacher], so nothing was compared that stands there"
    return f"graft.toml: {'; '.join([told, *changes])}. Nothing else of it was compared; docs/grid.md tells how."


def _served_claim(comparison: Comparison, task: TaskSpec) -> Claim | None:
    against = Judge(comparison, task).against(control_of(comparison))
    return against and against.claim


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
