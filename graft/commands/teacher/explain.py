"""``graft teacher explain``: what the teacher sees of one row and says of it, or what the cache has of it."""

import math
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import context_of, context_option, echo_result, json_option
from graft.commands.teacher.generations import generations_of, open_inventory, open_teacher
from graft.process import begin
from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from teacher_cache.cache.inventory import Found


@click.command
@click.option("--user", "user_id", required=True, metavar="ID", help="The user's id.")
@click.option("--item", "item_id", required=True, metavar="ID", help="The item's id.")
@context_option
@click.option("--cached", is_flag=True, help="Only the logits that the cache has, in every generation.")
@json_option
@click.pass_obj
def explain(
    project_folder: Path | None, user_id: str, item_id: str, context: tuple[str, ...], *, cached: bool, as_json: bool
) -> None:
    """Print every input of the teacher for a user and an item with the features of now, and the logits.

    Of each input: its value, the feature that feeds it, the transform, and whether it fell back to its default. Of
    each task: the logit beside the mean of up to 1,000 users' cached rows. Writes nothing.

    With --cached the cache's logits instead. Where the teacher sees a context there is one for each context, named by
    its digest; with --context that one alone, in which is missing what --context leaves out.

    Example: graft teacher explain --user 196 --item 242 --context hour=21
    """
    if cached:
        _echo_cached(project_folder, user_id, item_id, context, as_json=as_json)
    else:
        _echo_explained(project_folder, user_id, item_id, context, as_json=as_json)


def _echo_explained(
    project_folder: Path | None, user_id: str, item_id: str, context: tuple[str, ...], *, as_json: bool
) -> None:
    from features.online.reader import OnlineReader
    from graft.commands.teacher.teacher_parts import ProjectTeacher
    from teacher_cache.cache.inventory import Inventory
    from teacher_cache.domain.domain_map import explained
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


def _echo_cached(
    project_folder: Path | None, user_id: str, item_id: str, context: tuple[str, ...], *, as_json: bool
) -> None:
    process, teacher = open_teacher(project_folder)
    digest_of = _digests(teacher, context)
    known = generations_of(process, teacher)
    with closing(open_inventory(process, teacher)) as inventory:
        found = inventory.logits(user_id, item_id, list(known))
    if context:
        found = [one for one in found if one.context == digest_of(known[one.digest]["context"])]
    rows = [_cached_row(one, known[one.digest], teacher.config.ttl_seconds) for one in found]
    nothing = f"no generation has a logit of this user and item{' in this context' if context else ''}"
    echo_result([_cached_line(row) for row in rows] or [nothing], rows, as_json=as_json)


def _digests(teacher: "ProjectTeacher", given: tuple[str, ...]) -> "Callable[[Sequence[str]], str]":
    """Gives the digest of the given context for the names of those features of it that a teacher sees."""
    from features.contract import context_name
    from features.online.reader import context_value
    from teacher_cache.domain.context_key import context_digest

    told = context_of(given, teacher.project.features.context)
    features = [feature for feature in teacher.spec.features if feature.source == "context"]
    values = {feature.name: context_value(feature, told.get(context_name(feature))) for feature in features}
    return lambda names: context_digest({name: values.get(name) for name in names}) if names else ""


def _cached_row(found: "Found", generation: dict[str, Any], ttl_seconds: int) -> dict[str, Any]:
    tasks, is_current = generation["tasks"], generation["is_current"]
    names = tasks if len(tasks) == len(found.logits) else range(len(found.logits))
    return {
        "generation": found.digest,
        "is_current": is_current,
        "context": found.context or None,
        "age_seconds": found.age_seconds,
        "is_used": is_current and found.age_seconds <= ttl_seconds,
        "logits": {str(name): logit for name, logit in zip(names, found.logits, strict=True)},
    }


def _cached_line(row: dict[str, Any]) -> str:
    place = f"{row['generation']}{' (current)' if row['is_current'] else ''}"
    context = f" in context {row['context']}" if row["context"] else ""
    logits = ", ".join(f"{name} {logit:.6g}" for name, logit in row["logits"].items())
    return f"{place}{context} {_age(row['age_seconds'])} old{'' if row['is_used'] else ', not used'}: {logits}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
