"""The report's section on what could refute the student."""

import html
import re
from collections.abc import Sequence

from lab.demo.baselines import LABEL_DELAY_SECONDS, Baselines, Better, Ways
from lab.demo.tables import MEASURES, NOTHING, shown, table
from lab.study.findings import AS_INPUT_AND_PROFILES, PERMUTED, TEACHER_AS_INPUT
from lab.study.references import BAYES_BIAS, LR, LR_TEACHER, ONLINE_LR
from stream.tasks import TaskSpec
from student.evaluate.arms import CONTROL, STUDENT, TEACHER

_SAYS = {
    STUDENT: "",
    CONTROL: "the same without its teacher",
    TEACHER: "its logit alone",
    TEACHER_AS_INPUT: "the control with the teacher's logits as inputs: it calls the teacher at every request",
    AS_INPUT_AND_PROFILES: "the same with the teacher's profiles",
    PERMUTED: "the student with the logits of other rows",
    LR: "regression on shrunken means, refit every 250 examples",
    LR_TEACHER: "the same with the teacher's logits",
    BAYES_BIAS: "Bayesian biases of user and item alone",
    ONLINE_LR: "online regression on all that a student sees",
}


_LEAD = """<p class="note">The first {examples} examples of this run, learnt again after the stream by the code of
<code>graft study</code>, with one seed: the student after its bootstrap, and models that could be better than it.
<em>Row by row</em>: a prediction knows the labels of all examples before it. <em>Served</em>: it knows those of
impressions that came {minutes} minutes before its own, whatever the pace of this replay.</p>"""


def baselines_section(baselines: Baselines | None, tasks: Sequence[TaskSpec]) -> str:
    """Tables and verdict, with the number of examples."""
    if baselines is None:
        return '<p class="note">There was no example to learn.</p>'
    lead = _LEAD.format(examples=f"{baselines.examples:,}", minutes=LABEL_DELAY_SECONDS // 60)
    tables = "".join(f'<div class="wide">{_table(baselines, task)}</div>' for task in tasks)
    said = "".join(f"<li>{_plain(sentence)}</li>" for sentence in baselines.verdict)
    return f"{lead}{tables}<ul>{said}</ul>"


def _table(baselines: Baselines, task: TaskSpec) -> str:
    name, better = html.escape(task.name), "student better by"
    head = [f"{name}: {MEASURES[task.kind]}", "what it is", "row by row", better, "served", better]
    return table([_row(model, ways) for model, ways in baselines.scores[task.name].items()], head)


def _row(model: str, ways: Ways) -> tuple[str, ...]:
    cells = [(shown(way.score), _better(way.student_better)) for way in (ways.row_by_row, ways.served)]
    return html.escape(model), html.escape(_SAYS[model]), *(cell for both in cells for cell in both)


def _better(better: Better | None) -> str:
    if better is None:
        return NOTHING
    bounds = "" if better.low is None else f" [{better.low:+.4f}, {better.high:+.4f}]"
    return f"{better.mean:+.4f}{bounds}"


def _plain(sentence: str) -> str:
    """The verdict's Markdown has code alone."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(sentence))
