"""``graft teacher get``: what the teacher cache has of one user and item."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.context_option import context_of, context_option
from graft.commands.generations import generations_of, open_inventory, open_teacher
from graft.commands.output import echo_result, json_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graft.commands.teacher_parts import ProjectTeacher
    from teacher_cache.cache.inventory import Found


@click.command
@click.argument("user_id", metavar="USER")
@click.argument("item_id", metavar="ITEM")
@context_option
@json_option
@click.pass_obj
def get(project_folder: Path | None, user_id: str, item_id: str, context: tuple[str, ...], *, as_json: bool) -> None:
    """Print the logits that the cache has of one user and item, in every generation.

    Where the teacher sees a context there is one for each context, named by its digest; with --context that one alone,
    in which is missing what --context leaves out.

    Example: graft teacher get 196 242 --context hour=21
    """
    process, teacher = open_teacher(project_folder)
    digest_of = _digests(teacher, context)
    known = generations_of(process, teacher)
    with closing(open_inventory(process, teacher)) as inventory:
        found = inventory.logits(user_id, item_id, list(known))
    if context:
        found = [one for one in found if one.context == digest_of(known[one.digest]["context"])]
    rows = [_row(one, known[one.digest], teacher.config.ttl_seconds) for one in found]
    nothing = f"no generation has a logit of this user and item{' in this context' if context else ''}"
    echo_result([_line(row) for row in rows] or [nothing], rows, as_json=as_json)


def _digests(teacher: "ProjectTeacher", given: tuple[str, ...]) -> "Callable[[Sequence[str]], str]":
    """Gives the digest of the given context for the names of those features of it that a teacher sees."""
    from features.contract import context_name
    from features.lookup import context_value
    from teacher_cache.domain.context_key import context_digest

    told = context_of(given, teacher.project.features.context)
    features = [feature for feature in teacher.spec.features if feature.source == "context"]
    values = {feature.name: context_value(feature, told.get(context_name(feature))) for feature in features}
    return lambda names: context_digest({name: values.get(name) for name in names}) if names else ""


def _row(found: "Found", generation: dict[str, Any], ttl_seconds: int) -> dict[str, Any]:
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


def _line(row: dict[str, Any]) -> str:
    place = f"{row['generation']}{' (current)' if row['is_current'] else ''}"
    context = f" in context {row['context']}" if row["context"] else ""
    logits = ", ".join(f"{name} {logit:.6g}" for name, logit in row["logits"].items())
    return f"{place}{context} {_age(row['age_seconds'])} old{'' if row['is_used'] else ', not used'}: {logits}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
