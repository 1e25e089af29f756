"""``graft teacher explain``: what the teacher sees of one row, and what it says."""

import math
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from graft.commands.context_option import context_of, context_option
from graft.commands.output import echo_result, json_option
from graft.process import begin
from runtime.errors import InvalidInputError


@click.command
@click.option("--user", "user_id", required=True, metavar="ID", help="The user's id.")
@click.option("--item", "item_id", required=True, metavar="ID", help="The item's id.")
@context_option
@json_option
@click.pass_obj
def explain(
    project_folder: Path | None, user_id: str, item_id: str, context: tuple[str, ...], *, as_json: bool
) -> None:
    """Print every input of the teacher for a user and an item with the features of now, and the logits.

    Of each input: its value, the feature that feeds it, the transform, and whether it fell back to its default. Of
    each task: the logit beside the mean of up to 1,000 users' cached rows. Writes nothing.

    Example: graft teacher explain --user 196 --item 242 --context hour=21
    """
    from features.reader import OnlineReader
    from graft.commands.teacher_parts import ProjectTeacher
    from teacher_cache.cache.inventory import Inventory
    from teacher_cache.domain.explain import explained
    from teacher_cache.teacher import TeacherOutputError

    process = begin(project_folder)
    teacher = ProjectTeacher(process)
    spec, scoring = teacher.spec, teacher.scoring
    ids = _id(user_id, spec.user_id_type, "--user"), _id(item_id, spec.item_id_type, "--item")
    told = context_of(context, process.project.features.context)
    with closing(OnlineReader(spec, process.redis_url)) as reader:
        columns = reader.read([ids[0]], [ids[1]], [told])
    inputs = explained(scoring.domain_map, teacher.config.inputs, columns)
    refusal: str | None = None
    logit_T: list[float | None] = [None] * len(teacher.config.tasks)
    try:
        found_T = scoring.model.score(scoring.domain_map.map_rows(columns).inputs)[0].tolist()
        if all(math.isfinite(logit) for logit in found_T):
            logit_T = found_T
        else:
            refusal = "the dump does not have this row: its example learns from the labels alone"
    except TeacherOutputError as error:
        refusal = error.reason
    with closing(Inventory(process.redis_url, teacher.project.name)) as inventory:
        rows, means = inventory.means(teacher.generation.digest, len(logit_T))
    tasks = [
        {"name": task.name, "kind": task.kind, "logit": logit, "mean": mean if rows else None}
        for task, logit, mean in zip(teacher.config.tasks, logit_T, means, strict=True)
    ]
    lines = [
        f"teacher {teacher.config.version}, generation {teacher.generation.digest}",
        *(f"  {one.line()}" for one in inputs),
        *([f"  no logits: {refusal}"] if refusal else [f"  {_task_line(task, rows)}" for task in tasks]),
    ]
    found = {
        "generation": teacher.generation.digest,
        "inputs": [one._asdict() for one in inputs],
        "tasks": tasks,
        "refusal": refusal,
    }
    echo_result(lines, {**found, "rows_of_mean": rows}, as_json=as_json)


def _task_line(task: dict[str, Any], rows: int) -> str:
    said = _words(task, task["logit"])
    beside = "nothing is cached to compare with" if not rows else f"on average {_words(task, task['mean'])}"
    return f"{task['name']}: {said}; {beside}{f' over {rows:,} cached rows' if rows else ''}"


def _words(task: dict[str, Any], value: float) -> str:
    if task["kind"] == "regression":
        return f"{value:.4g}"
    return f"{100 / (1 + math.exp(-max(-700.0, min(700.0, value)))):.1f} % (logit {value:.4g})"


def _id(text: str, kind: str, option: str) -> int | str:
    if kind == "str":
        return text
    try:
        return int(text)
    except ValueError:
        raise InvalidInputError(f"{option}: must be an integer, as Feast's entity says, got {text!r}") from None
