"""The texts of a project folder: graft.toml, feature_store.yaml and Feast's definitions."""

from collections.abc import Iterator
from typing import Any

from features.config import AggregateConfig, ContextFeature, FeaturesConfig, ProfileConfig
from graft.init.names import identifier
from graft.init.plan import WINDOW_SECONDS, Plan
from graft.init.teacher_match import Match
from graft.init.toml_text import GUESSED, key_text, prose, table_lines, toml_value
from graft.project import Project
from stream.config import RetentionConfig, StreamConfig
from stream.tasks import TaskSpec
from student.learn.config import BootstrapConfig, DistillationConfig, PublishConfig, SkewConfig
from student.versions.config import StudentConfig
from student.versions.gate import GateConfig, SliceConfig
from teacher_cache.config import DumpConfig, ServerConfig, TeacherConfig, UnshownConfig

SERVICE = "ranking"
_HEAD = """# Written by 'graft init'. Every key stands here with its meaning; one that is commented out has its default.
# '# guessed:' marks what was not said but follows from names and values, and why: look at these lines.
# 'graft check' finds all faults of this file at once. docs/configuration.md tells all keys once more.
"""
STORE = """project: {name}
provider: local
registry: data/registry.db
online_store:
  type: redis
  connection_string: "localhost:6379" # graft puts the address from GRAFT_REDIS_URL here
  skip_dedup: true
offline_store:
  type: dask
entity_key_serialization_version: 3
"""
_DEFINITIONS = '''"""The users and items of this project, in Feast's words. Written by 'graft init'."""

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Float32, Int64, String

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.{user_type})
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.{item_type})


def table(name):
    return FileSource(name=f"{{name}}_table", path=f"data/{{name}}.parquet", timestamp_field="event_timestamp")


{views}
ranking = FeatureService(name="{service}", features=[{names}])
'''


def definitions(plan: Plan) -> str:
    """definitions.py of the feature repository: tables as batch views, running aggregates as push views."""
    types = {"user": plan.log.user_whole, "item": plan.log.item_whole}
    views, names = [], []
    for table in plan.tables:
        fields = [(feature.name, feature.feast_type, feature.width) for feature in table.features]
        views.append(_view(table.view, table.entity, fields, whole=types[table.entity], pushed=False))
        names.append(table.view)
    for entity in ("user", "item"):
        fields = [(column, "Float32", 0) for column in plan.aggregates()]
        views.append(_view(f"{entity}_activity", entity, fields, whole=types[entity], pushed=True))
        names.append(f"{entity}_activity")
    user_type, item_type = ("INT64" if types[entity] else "STRING" for entity in ("user", "item"))
    return _DEFINITIONS.format(
        user_type=user_type, item_type=item_type, views="\n".join(views), names=", ".join(names), service=SERVICE
    )


def _view(name: str, entity: str, fields: list[tuple[str, Any, int]], *, whole: bool, pushed: bool) -> str:
    source = f'PushSource(name="{name}_push", batch_source=table("{name}"))' if pushed else f'table("{name}")'
    rows = [f'Field(name="{entity}_id", dtype={"Int64" if whole else "String"})']
    for field, dtype, width in fields:
        length = f", vector_length={width}" if width else ""
        rows.append(f'Field(name="{field}", dtype={dtype}{length})')
    schema = "".join(f"        {row},\n" for row in rows)
    return (
        f'{name} = FeatureView(\n    name="{name}",\n    entities=[{entity}],\n    schema=[\n{schema}    ],\n'
        f"    source={source},\n)"
    )


def graft_toml(plan: Plan) -> str:
    """The project file."""
    parts = [
        _HEAD.strip(),
        _lines(table_lines("", Project, {"name": plan.name}, {})),
        *_tasks(plan),
        _lines(table_lines("[stream]", StreamConfig, {"topic_prefix": f"{plan.name}-"}, {})),
        _lines(table_lines("[stream.retention]", RetentionConfig, {}, {})),
        *_features(plan),
        *_teacher(plan),
        *_distillation(plan),
    ]
    for header, model in (
        ("[unshown]", UnshownConfig),
        ("[student]", StudentConfig),
        ("[bootstrap]", BootstrapConfig),
        ("[publish]", PublishConfig),
        ("[gate]", GateConfig),
        ("[skew]", SkewConfig),
    ):
        parts.append(_lines(table_lines(header, model, {}, {})))
    parts.append(_lines(_commented("[[gate.slices]]", SliceConfig)))
    return "\n\n".join(parts) + "\n"


def _tasks(plan: Plan) -> Iterator[str]:
    for i, label in enumerate(plan.roles.labels):
        values = {
            "name": label.name,
            "kind": label.kind,
            "window_seconds": plan.windows.get(label.name, WINDOW_SECONDS),
        }
        base = plan.bases[label.name]
        held = f"share of yes {base.mean:.2%}" if label.kind == "binary" else f"{base.low:g} to {base.high:g}"
        window = f"{WINDOW_SECONDS} s; the log has one time a row, so it does not tell how long an answer takes"
        if label.name in plan.windows:
            window = "the longest time between an impression and its feedback in the log"
        lines = [*prose(f"{label}; {held}" + (f"; guessed: {label.why}" if label.why else ""))]
        lines += table_lines("[[tasks]]", TaskSpec, values, {"window_seconds": window}, brief=i > 0)
        yield _lines(lines)


def _features(plan: Plan) -> Iterator[str]:
    lists = plan.lists()
    values: dict[str, Any] = {"service": SERVICE, **{role: names for role, names in lists.items() if names}}
    guesses = {role: "by the type of each column" for role in ("dense", "categorical", "embedding") if lists[role]}
    if lists["passthrough"]:
        guesses["passthrough"] = "inputs of the teacher that the student does not see"
    yield _lines(table_lines("[features]", FeaturesConfig, values, guesses, without=["defaults"]))
    for context in plan.roles.context:
        shown = {"dtype": context.dtype, "default": plan.context_default(context.name, context.dtype)}
        guess = {"default": "its most frequent value" if context.dtype != "float" else "its mean"}
        header = f"[features.context.{key_text(context.name)}]"
        yield _lines(table_lines(header, ContextFeature, shown, guess, brief=context is not plan.roles.context[0]))
    if defaults := plan.defaults():
        meaning = str(FeaturesConfig.model_fields["defaults"].description)
        lines = ["[features.defaults]", *prose(f"{meaning}; guessed: the mean of each column, zeros of lists")]
        yield _lines([*lines, *(f"{key_text(name)} = {toml_value(value)}" for name, value in defaults.items())])
    for i, entity in enumerate(("user", "item")):
        values = {"entity": entity, "push_source": f"{entity}_activity_push", "columns": plan.aggregates()}
        yield _lines(table_lines("[[features.aggregates]]", AggregateConfig, values, {}, brief=i > 0))
    yield _lines(_commented("[[features.profiles]]", ProfileConfig))


def _teacher(plan: Plan) -> Iterator[str]:
    yield from _onnx_teacher(plan)
    yield _lines(_commented("[teacher.server]", ServerConfig))
    yield _lines(_commented("[teacher.dump]", DumpConfig))


def _onnx_teacher(plan: Plan) -> Iterator[str]:
    found = plan.teacher
    if found is None:
        none = (
            "No teacher: the student learns from its labels alone. For one, exported as ONNX, run 'graft init' with "
            "--teacher into a new folder."
        )
        yield _lines([*prose(none), *_commented("[teacher]", TeacherConfig)])
        return
    tasks = [task.model_dump() for task in found.tasks]
    values: dict[str, Any] = {"version": f"{plan.name}-1", "onnx": str(plan.teacher_file), "tasks": tasks}
    guesses = {"tasks": "the kind of each, by its name"}
    if found.signature.vectors:
        taken = [task.name for task in found.tasks]
        values["vectors"] = [{"name": identifier(n, taken), "output": n} for n in found.signature.vectors]
    yield _lines(table_lines("[teacher]", TeacherConfig, values, guesses))
    mapped = [_input_line(match) for match in found.inputs]
    yield _lines(
        [
            "[teacher.inputs]",
            *prose("the domain map: which feature feeds each input of the teacher, and its value in a row without one"),
            *mapped,
        ]
    )


def _input_line(match: Match) -> str:
    entry: dict[str, Any] = {"kind": "default", "default": match.default}
    if match.candidate:
        entry = {"kind": "feature", "feature": match.candidate.name, "default": match.default}
    return f"{key_text(match.name)} = {toml_value(entry)} {GUESSED} {match.why}".replace("\n", " ")


def _distillation(plan: Plan) -> Iterator[str]:
    if plan.teacher is None:
        return
    for i, task in enumerate(plan.teacher.tasks):
        values = {"teacher_task": task.name}
        twin = plan.teacher.distilled.get(task.name)
        guess = {"teacher_task": "no task here is called alike, so it has a tower of its own"}
        if twin:
            values["student_task"] = twin
            guess = {"student_task": "by name and kind"}
        yield _lines(table_lines("[[distillation]]", DistillationConfig, values, guess, brief=i > 0))


def _commented(header: str, model: Any) -> Iterator[str]:
    yield f"# {header}"
    for name, field in model.model_fields.items():
        yield from prose(f"{name}: {field.description}")


def _lines(lines: Any) -> str:
    return "\n".join(lines)
