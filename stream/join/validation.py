"""Events from outside, checked against their contract, the feature spec and the tasks."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from pydantic import TypeAdapter
from pydantic_core import SchemaValidator, ValidationError, core_schema

from features.contract import ID_TEXT, Rule, contract_of, faults_of
from features.spec import FeatureSpec
from runtime.errors import InvalidInputError
from stream.events import EventRecord, EventTimeMs, Feedback, Impression, Label
from stream.tasks import TaskSpec

_EVENT_TIME = Rule(TypeAdapter(EventTimeMs).core_schema, "milliseconds since 1970 in [0, 2^53)")
_LABEL = Rule(
    core_schema.custom_error_schema(  # one fault; a union reports one for each of its types
        TypeAdapter(Label).core_schema,
        custom_error_type="label",
        custom_error_message="Input should be a finite number",
    ),
    "a finite number",
)
_NO_RANGE = "; if such labels are meant, declare the task's range in graft.toml"
_Event = TypeVar("_Event", bound=EventRecord)


class Validator:
    """Bytes to events. InvalidInputError names every bad field, its value and what is allowed."""

    def __init__(self, spec: FeatureSpec, tasks: Sequence[TaskSpec]) -> None:
        self._tasks = {task.name: task for task in tasks}
        contract = contract_of(spec)
        self._impression = _Parser(
            Impression,
            "an object with impression_id, user_id, item_id, event_time_ms and, optionally, context",
            {
                "impression_id": ID_TEXT,
                "user_id": contract.user_id,
                "item_id": contract.item_id,
                "event_time_ms": _EVENT_TIME,
                "context": _or_empty(contract.context),
            },
            contract.allowed_context(),
        )
        self._feedback = _Parser(
            Feedback,
            "an object with impression_id, task, value and event_time_ms",
            {
                "impression_id": ID_TEXT,
                "task": Rule(core_schema.literal_schema(list(self._tasks)), f"one of {', '.join(self._tasks)}"),
                "value": _LABEL,
                "event_time_ms": _EVENT_TIME,
            },
        )

    def impression(self, value: bytes | None) -> Impression:
        """The impression that `value` holds."""
        return self._impression.parse(value)

    def feedback(self, value: bytes | None) -> Feedback:
        """The feedback that `value` holds."""
        feedback = self._feedback.parse(value)
        task = self._tasks[feedback.task]
        if not task.allows(feedback.value):
            raise InvalidInputError(
                f"value: of the {task.kind} task {task.name} must be {_allowed_labels(task)}, got {feedback.value}"
                f"{_NO_RANGE if task.kind == 'regression' and task.range is None else ''}"
            )
        return feedback


class _Parser(Generic[_Event]):
    """Reads one kind of event: a JSON object with these fields and no other.

    `whole` says that in words; `within` says what the fields of a field may hold, by path.
    """

    def __init__(
        self, event: type[_Event], whole: str, fields: Mapping[str, Rule], within: Mapping[str, str] | None = None
    ) -> None:
        self._event = event
        self._allowed = {"": whole} | {name: rule.allowed for name, rule in fields.items()} | dict(within or {})
        schemas = {name: core_schema.typed_dict_field(rule.schema) for name, rule in fields.items()}
        # Not a model_schema of `event`: pydantic-core would check by the class's own schema, which knows no spec.
        self._validator = SchemaValidator(core_schema.typed_dict_schema(schemas, strict=True, extra_behavior="forbid"))

    def parse(self, value: bytes | None) -> _Event:
        """The event that `value` holds; InvalidInputError with every fault."""
        try:
            return self._event.of_checked(self._validator.validate_json(value or b""))
        except ValidationError as error:
            faults = faults_of(error, "the message", self._allowed)
            raise InvalidInputError("; ".join(f"{f['message']}, got {f['value']!r}" for f in faults)) from None


def _allowed_labels(task: TaskSpec) -> str:
    """What a label of the task may be, in words."""
    low, high = task.bounds
    return "0 or 1" if task.kind == "binary" else f"in [{low:g}, {high:g}]"


def _or_empty(rule: Rule) -> Rule:
    """The rule of a field that may be left out, which is an empty object then."""
    return Rule(core_schema.with_default_schema(rule.schema, default_factory=dict), rule.allowed)
