"""Events from outside, checked against their contract, the feature spec and the tasks."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from features.spec import FeatureSpec
from runtime.errors import InvalidInputError
from stream.events import ContextValue, EntityId, Feedback, Impression
from stream.tasks import TaskSpec

_Event = TypeVar("_Event", bound=BaseModel)
_SHOWN_CHARACTERS = 100
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


class Validator:
    """Bytes to events. InvalidInputError names every bad field, its value and what is allowed."""

    def __init__(self, spec: FeatureSpec, tasks: Sequence[TaskSpec]) -> None:
        self._id_types = {"user_id": spec.user_id_type, "item_id": spec.item_id_type}
        self._context = {context_key(f.name): f.dtype for f in spec.features if f.source == "context"}
        self._kinds = {task.name: task.kind for task in tasks}

    def impression(self, value: bytes | None) -> Impression:
        """The impression that `value` holds."""
        impression = _parsed(Impression, value)
        faults = [*self._id_faults(impression), *self._context_faults(impression.context)]
        if faults:
            raise InvalidInputError("; ".join(faults))
        return impression

    def feedback(self, value: bytes | None) -> Feedback:
        """The feedback that `value` holds."""
        feedback = _parsed(Feedback, value)
        kind = self._kinds.get(feedback.task)
        if kind is None:
            raise InvalidInputError(f"task: must be one of {', '.join(self._kinds)}, got {_shown(feedback.task)}")
        if kind == "binary" and feedback.value not in (0, 1):
            raise InvalidInputError(
                f"value: of the binary task {feedback.task} must be 0 or 1, got {_shown(feedback.value)}"
            )
        return feedback

    def _id_faults(self, impression: Impression) -> list[str]:
        ids: dict[str, EntityId] = {"user_id": impression.user_id, "item_id": impression.item_id}
        return [
            f"{name}: must be {self._id_types[name]} as in the feature repo, got {_shown(value)}"
            for name, value in ids.items()
            if type(value).__name__ != self._id_types[name]
        ]

    def _context_faults(self, context: dict[str, ContextValue]) -> list[str]:
        return [fault for name, value in context.items() if (fault := self._context_fault(name, value))]

    def _context_fault(self, name: str, value: ContextValue) -> str | None:
        dtype = self._context.get(name)
        if dtype is None:
            allowed = ", ".join(self._context) or "nothing"
            return f"context.{_shown(name)}: is not declared in graft.toml features.context, which has {allowed}"
        if not isinstance(value, _TYPES[dtype]):
            return f"context.{name}: must be {dtype}, got {_shown(value)}"
        return None


def context_key(feature: str) -> str:
    """The key in an event's `context` that feeds the context feature of this name."""
    return feature.removeprefix("context:")


def _parsed(model: type[_Event], value: bytes | None) -> _Event:
    try:
        return model.model_validate_json(value or b"")
    except ValidationError as error:
        raise InvalidInputError("; ".join(_fault(fault) for fault in error.errors(include_url=False))) from None


def _fault(fault: object) -> str:
    assert isinstance(fault, dict)
    place = ".".join(str(part) for part in fault["loc"]) or "message"
    return f"{place}: {fault['msg']}, got {_shown(fault['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
