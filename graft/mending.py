"""A graft.toml with faults, mended so that the parts without faults can be checked too; for `graft check` alone.

What is wrong is removed, or a stand-in takes its place. A later fault that comes from a stand-in, not from the file, is
recognised by `Mended.causes`.
"""

import difflib
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError

from graft.faults import Fault, alternatives, located_faults
from teacher_cache.config import KINDS

STAND_IN = "graft_check_stand_in"
"""Takes the place of a text that must be there; occurs in no project."""

Keys = tuple[str, ...]
_MOST_ROUNDS = 10  # one for the values, then one per broken rule between the keys of one table
_LIST_OF_FEATURES = ("dense", "categorical", "embedding", "passthrough")
_KINDS = (*KINDS, "torch_export")  # the last one is of an earlier release (graft/removed.py)


class Mended(NamedTuple):
    """A model that validates, the faults that it had, and the places where it was changed."""

    value: Any
    faults: list[str]
    places: set[Keys]

    def causes(self, fault: str) -> bool:
        """Whether this fault of the mended project follows from what was changed."""
        keys = tuple(fault.partition(": ")[0].split("."))
        return (
            STAND_IN in fault
            or (any(keys[: len(place)] == place for place in self.places) and "has no such input" not in fault)
            or any(f"{name!r}" in fault for name in self._features_changed())
            or (fault.startswith("teacher: must have one of") and self._kind_of_teacher_changed())
            or (fault.endswith("both must be of one kind") and any(f"{n!r} is" in fault for n in self._kinds_changed()))
        )

    def features_are_known(self) -> bool:
        """Whether the lists of features are as the file has them."""
        changed = {(*place, "")[1] for place in self.places if place[0] == "features"}
        return not changed.intersection({"", *_LIST_OF_FEATURES})

    def _kind_of_teacher_changed(self) -> bool:
        """Whether what says where the teacher is was changed, or what may have been meant so."""
        return any(place[0] == "teacher" and (len(place) == 1 or place[1] in _KINDS) for place in self.places)

    def _features_changed(self) -> list[str]:
        """The features whose default or context was changed."""
        names = {"context": "context:{}", "defaults": "{}"}
        inner = [place for place in self.places if place[0] == "features" and len(place) > 2 and place[1] in names]
        return [names[place[1]].format(place[2]) for place in inner]

    def _kinds_changed(self) -> list[str]:
        """The names of tasks whose kind was changed."""
        changed = [place for place in self.places if place[-1] == "kind" and place[-3:-2] == ("tasks",)]
        teacher = self.value.teacher
        tasks = {"tasks": self.value.tasks, "teacher": teacher.tasks if teacher else []}
        return [tasks[place[0]][int(place[-2])].name for place in changed]


def mended(table: Mapping[str, Any], model: type[BaseModel]) -> Mended:
    """The model after as many changes as it needs to validate; `table` itself stays as it is."""
    changed, faults, places = deepcopy(dict(table)), list[str](), set[Keys]()
    for _ in range(_MOST_ROUNDS):
        try:
            return Mended(model.model_validate(changed), list(dict.fromkeys(faults)), places)
        except ValidationError as error:
            found = located_faults(error, model)
        faults += [fault.text for fault in found if not _follows(fault, places)]
        for fault in found:
            places.update(_mend(changed, fault))
    raise AssertionError(f"cannot be mended: {found}")


def _follows(fault: Fault, places: set[Keys]) -> bool:
    """Whether a change below the place caused the fault; of a rule between keys, a change of one that it names."""
    depth = len(fault.place.keys)
    below = {place[depth:] for place in places if place[:depth] == fault.place.keys}
    if fault.rule == "value_error":
        return any(keys and keys[0] in _words(fault.text) for keys in below)
    return bool(below)


def _mend(table: dict[str, Any], fault: Fault) -> list[Keys]:
    """Change the place of the fault; the places that count as changed."""
    *above, last = fault.place.keys
    parent = _at(table, above)
    key: Any = int(last) if isinstance(parent, list) else last
    if fault.rule == "extra_forbidden":
        parent.pop(key, None)
        near = difflib.get_close_matches(last, getattr(fault.owner, "model_fields", ()), n=1)
        return [fault.place.keys, *((*above, name) for name in near)]  # the near name may be what was meant
    if fault.rule == "value_error" and _is_model(fault.place.annotation):
        return _mend_between(parent[key], fault)
    if _is_optional(fault.owner, last):
        parent.pop(key, None)
    else:
        parent[key] = _normalised(parent, key) or _stand_in(fault.place.annotation)
    return [fault.place.keys]


def _mend_between(table: dict[str, Any], fault: Fault) -> list[Keys]:
    """Remove the keys that a broken rule names, so that their defaults hold; what must be there gets a stand-in."""
    fields = fault.place.annotation.model_fields
    named = [name for name in _words(fault.text) & fields.keys() if fields[name].is_required() == (name not in table)]
    for name in named:
        if name in table:
            del table[name]
        else:
            table[name] = _stand_in(fields[name].annotation)
    assert named, f"a rule between keys must name one that has a default or is missing: {fault.text}"
    return [(*fault.place.keys, name) for name in named]


def _normalised(parent: Any, key: Any) -> str | None:
    """A name without the letters that are not allowed, so that what refers to it finds it."""
    value = parent.get(key) if isinstance(parent, dict) else None
    name = re.sub(r"[^a-z0-9_]", "_", value.lower()) if key == "name" and isinstance(value, str) else ""
    return name if name[:1].isalpha() else None


def _stand_in(annotation: Any) -> Any:
    """A value that fits the type."""
    kind = alternatives(annotation)[0]
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is list:
        return [_stand_in(get_args(kind)[0])] * 2  # no list needs more
    if get_origin(kind) is dict:
        return {STAND_IN: _stand_in(get_args(kind)[1])}
    if _is_model(kind):
        required = {name: field for name, field in kind.model_fields.items() if field.is_required()}
        return {name: _stand_in(field.annotation) for name, field in required.items()} | _tag(kind)
    return STAND_IN if kind in (str, Path) else 1


def _tag(model: type[BaseModel]) -> dict[str, str]:
    """What tells a branch of a union from the others."""
    return {"kind": model.model_fields["kind"].default} if _is_optional(model, "kind") else {}


def _at(table: Any, keys: list[str]) -> Any:
    for key in keys:
        table = table[int(key) if isinstance(table, list) else key]
    return table


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_optional(owner: Any, name: str) -> bool:
    return _is_model(owner) and name in owner.model_fields and not owner.model_fields[name].is_required()


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
