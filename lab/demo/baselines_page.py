"""The report's section on what could refute the student."""

from collections.abc import Sequence

from lab.demo.baselines import LABEL_DELAY_SECONDS, Baselines
from lab.page import sentences
from lab.study.model_scores import scores_table
from stream.tasks import TaskSpec

_LEAD = """<p class="note">The first {examples} examples of this run, learnt again after the stream by the code of
<code>graft study</code>, with one seed: the student after its bootstrap, and models that could be better than it.
<em>Row by row</em>: a prediction knows the labels of all examples before it. <em>Served</em>: it knows those of
impressions that came {minutes} minutes before its own, whatever the pace of this replay.</p>"""


def baselines_section(baselines: Baselines | None, tasks: Sequence[TaskSpec]) -> str:
    """Tables and verdict, with the number of examples."""
    if baselines is None:
        return '<p class="note">There was no example to learn.</p>'
    lead = _LEAD.format(examples=f"{baselines.examples:,}", minutes=LABEL_DELAY_SECONDS // 60)
    tables = "".join(scores_table(task, baselines.scores[task.name]) for task in tasks)
    return f"{lead}{tables}{sentences(baselines.verdict)}"
