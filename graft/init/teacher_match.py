"""Matches the teacher's inputs with what the target has, by name, type and range; the rest have their defaults."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from graft.init import names
from graft.init.roles import Label
from runtime.errors import ConfigurationError
from stream.tasks import TaskKind
from teacher_cache.config import TeacherTask
from teacher_cache.domain.domain_map_faults import probability_warnings
from teacher_cache.kinds.onnx_teacher import open_onnx, read_signature
from teacher_cache.teacher import Teacher, TeacherOutputError, TensorSpec

_LIKE_ENOUGH = 0.5
_TRIED_ROWS = 256
_DTYPES = {"i": ("int",), "f": ("int", "float"), "O": ("str",)}


@dataclass(frozen=True)
class Candidate:
    """A target feature: its name in graft.toml, its type, the share of rows that have it, its range and its default.

    `entity` is user or item, or "" of context.
    """

    name: str
    entity: str
    dtype: str
    filled: float
    low: float = 0.0
    high: float = 0.0
    default: float | str | list[float] = 0.0
    width: int = 1

    def likeness(self, name: str) -> float:
        """How alike the name of an input is, with or without the entity in it."""
        bare = self.name.rpartition(":")[2]
        return max(names.likeness(name, bare), names.likeness(name, f"{self.entity}_{bare}") if self.entity else 0.0)


class Match(NamedTuple):
    """An input of the teacher. Without a `candidate` it has its default alone; `why` says which and why not.

    `transform`: the keys of its entry in graft.toml beside feature and default.
    """

    name: str
    type: str
    candidate: Candidate | None
    default: float | str | list[float]
    why: str
    transform: Mapping[str, Any] = MappingProxyType({"kind": "feature"})


class Matched(NamedTuple):
    """What is known of a teacher. `vectors`: name -> width. `notes`: what only a human can know.

    `distilled`: teacher task -> the task here that learns it. `trained_until`: the end of its training data as ISO
    8601; "": it has seen no time of the target's. `is_fitted`: graft trained it, so its tasks and inputs are known.
    """

    vectors: Mapping[str, int]
    tasks: list[TeacherTask]
    inputs: list[Match]
    distilled: dict[str, str]
    notes: list[str]
    trained_until: str = ""
    is_fitted: bool = False


def match_teacher(path: Path, candidates: Iterable[Candidate], labels: list[Label]) -> Matched:
    """All that can be said of a teacher; ConfigurationError if it cannot be one."""
    signature = read_signature(path)
    if not signature.tasks:
        given = ", ".join(
            f"{name} ({form})" for name, form in [*signature.unusable.items(), *signature.vectors.items()]
        )
        raise ConfigurationError([f"{path}: no output can be a task, which is a float [B] or [B, 1]; it has {given}"])
    tasks, distilled, notes = tasks_of(dict.fromkeys(signature.tasks), labels)
    known = list(candidates)
    inputs = [_match(name, tensor, known) for name, tensor in signature.inputs.items()]
    teacher = open_onnx(path, tasks)
    inputs = _probed(teacher, inputs, signature.inputs, notes)
    notes += _probabilities(teacher, tasks, inputs, signature.inputs)
    notes += [f"the teacher's output {name} is not used: {form}" for name, form in signature.unusable.items()]
    notes += [
        f"whether {match.name} of the teacher means the same values as {match.candidate.name} here: it was matched by "
        "name, type and range"
        for match in inputs
        if match.candidate and match.candidate.name in ("user_id", "item_id")
    ]
    return Matched(signature.vectors, tasks, inputs, distilled, notes)


def tasks_of(
    outputs: Mapping[str, TaskKind | None], labels: list[Label]
) -> tuple[list[TeacherTask], dict[str, str], list[str]]:
    """The tasks, which student task each is distilled into, and notes. A kind that is not known is guessed by names."""
    tasks: list[TeacherTask] = []
    distilled: dict[str, str] = {}
    notes = []
    for output, known in outputs.items():
        name = names.identifier(output, [task.name for task in tasks], "task")
        fitting = [label for label in labels if known in (None, label.kind)]
        near = sorted(fitting, key=lambda label: -names.likeness(output, label.name))
        twin = near[0] if near and names.likeness(output, near[0].name) >= _LIKE_ENOUGH else None
        kind = known or (twin.kind if twin else "regression" if names.means(output, names.NUMBER) else "binary")
        tasks.append(TeacherTask(name=name, kind=kind, output=output))
        if twin and twin.name not in distilled.values():
            distilled[name] = twin.name
        if known is None:
            said = "a logit, not a probability" if kind == "binary" else "a value in the label's unit"
            notes.append(f"whether the teacher's output {output} is {said}, as its name suggests")
    if not distilled:
        twins = [(task, label) for task in tasks for label in labels if task.kind == label.kind]
        if twins:
            task, label = twins[0]
            distilled[task.name] = label.name
            notes.append(
                f"whether {task.name} of the teacher is about {label.name} here: they are of one kind, no more"
            )
    return tasks, distilled, notes


def _match(name: str, tensor: TensorSpec, candidates: list[Candidate]) -> Match:
    form = _form(tensor)
    zero: float | str = "" if tensor.dtype.kind == "O" else 0 if tensor.dtype.kind == "i" else 0.0
    alike = [c for c in candidates if c.likeness(name) >= _LIKE_ENOUGH]
    alike.sort(key=lambda c: -c.likeness(name))
    if not alike:
        return Match(name, form, None, zero, "nothing here has such a name")
    if alike[0].name == "user_id":
        return Match(name, form, None, zero, "the sister's users have ids of their own")
    for candidate in alike:
        if _fits(tensor, candidate):
            return Match(name, form, candidate, _default(candidate, tensor, zero), "by name and type")
    return Match(
        name, form, None, zero, f"{alike[0].name} is {_article(alike[0])}, it takes {form}; write a lookup or a bucket"
    )


def _fits(tensor: TensorSpec, candidate: Candidate) -> bool:
    if candidate.dtype == "float_list":
        return tensor.dtype.kind == "f" and tensor.width == candidate.width
    return tensor.width == 1 and candidate.dtype in _DTYPES.get(tensor.dtype.kind, ())


def _default(candidate: Candidate, tensor: TensorSpec, zero: float | str) -> float | str | list[float]:
    default = candidate.default
    if isinstance(default, list) or isinstance(zero, str):
        return default if isinstance(default, list) else zero
    number = default if isinstance(default, int | float) else 0.0
    return round(number) if tensor.dtype.kind == "i" else float(number)


def _probed(teacher: Teacher, inputs: list[Match], tensors: Mapping[str, TensorSpec], notes: list[str]) -> list[Match]:
    """The inputs, each without its feature where the teacher cannot compute the ends of the feature's range.

    Such as ids beyond its embedding table.
    """
    base = {match.name: _row(tensors[match.name], match.default) for match in inputs}
    if fault := _refusal(teacher, base):
        notes.append(
            f"which values the teacher takes where nothing is known: it cannot compute a row of defaults ({fault})"
        )
        return inputs
    return [_in_range(teacher, base, match, tensors[match.name]) for match in inputs]


def _probabilities(
    teacher: Teacher, tasks: list[TeacherTask], inputs: list[Match], tensors: Mapping[str, TensorSpec]
) -> Iterator[str]:
    """Of each output that looks like a probability on rows drawn within the ranges of what feeds the inputs."""
    draw = np.random.default_rng(0)
    rows = {}
    for match in inputs:
        tensor, fed = tensors[match.name], match.candidate
        rows[match.name] = np.repeat(_row(tensor, match.default), _TRIED_ROWS, axis=0)
        if fed and fed.dtype in ("int", "float"):
            drawn = draw.uniform(fed.low, fed.high, rows[match.name].shape)
            rows[match.name] = (np.round(drawn) if fed.dtype == "int" else drawn).astype(tensor.dtype)
    for warning in probability_warnings(teacher, tasks, rows).values():
        yield f"whether the teacher gives logits: {warning}"


def _in_range(teacher: Teacher, base: dict[str, NDArray[Any]], match: Match, tensor: TensorSpec) -> Match:
    candidate = match.candidate
    if candidate is None or candidate.dtype not in ("int", "float"):
        return match
    for end in (candidate.low, candidate.high):
        value = int(end) if tensor.dtype.kind == "i" else end
        if tensor.dtype.kind == "i" and not np.iinfo(tensor.dtype).min <= value <= np.iinfo(tensor.dtype).max:
            return match._replace(candidate=None, why=f"{candidate.name} has {value}, beyond {match.type}")
        if fault := _refusal(teacher, base | {match.name: _row(tensor, value)}):
            return match._replace(
                candidate=None, why=f"{candidate.name} has {end:g}, which the teacher refuses ({fault})"
            )
    return match


def _refusal(teacher: Teacher, row: dict[str, NDArray[Any]]) -> str:
    """Why the teacher cannot compute this row; "" if it can."""
    try:
        teacher.score(row)
    except TeacherOutputError as error:
        return str(error).partition(": ")[2][:120]
    return ""


def _row(tensor: TensorSpec, value: float | str | list[float]) -> NDArray[Any]:
    shape = (1,) if tensor.width == 1 else (1, tensor.width)
    return np.broadcast_to(np.asarray(value, tensor.dtype), shape).copy()


def _form(tensor: TensorSpec) -> str:
    name = "string" if tensor.dtype.kind == "O" else str(tensor.dtype.name)
    return name if tensor.width == 1 else f"{name}[{tensor.width}]"


def _article(candidate: Candidate) -> str:
    return {"int": "an integer", "float": "a number", "str": "a text"}.get(
        candidate.dtype, f"a list of {candidate.width}"
    )
