"""The texts of a project folder: graft.toml, feature_store.yaml and Feast's definitions."""

from collections.abc import Iterator
from typing import Any

from features.config import AggregateConfig, ContextFeature, FeaturesConfig, ProfileConfig
from graft.init.plan import WINDOW_SECONDS, Plan
from graft.init.toml_text import commented, key_text, lines_of, prose, table_lines, teacher_text, toml_value
from graft.project import Project
from stream.config import StreamConfig
from stream.join.sampling import SamplingConfig
from stream.tasks import TaskSpec
from student.learn.config import BootstrapConfig, PublishConfig
from student.versions.gate import GateConfig, SliceConfig
from student.versions.manifest import StudentConfig

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
    """definitions.py of the feature repository: tables are batch views, running aggregates and profiles push views."""
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
    for profile in plan.profiles:
        fields = [(name, "Array(Float32)" if width else "Float32", width) for name, width in profile.widths.items()]
        views.append(_view(profile.view, profile.entity, fields, whole=types[profile.entity], pushed=True))
        names.append(profile.view)
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
        lines_of(table_lines("", Project, {"name": plan.name}, {})),
        *_tasks(plan),
        lines_of(table_lines("[stream]", StreamConfig, {"topic_prefix": f"{plan.name}-"}, {})),
        _sampling(plan),
        *_features(plan),
        teacher_text(plan.name, str(plan.teacher_file), plan.teacher),
    ]
    for header, model in (
        ("[student]", StudentConfig),
        ("[bootstrap]", BootstrapConfig),
        ("[publish]", PublishConfig),
        ("[gate]", GateConfig),
    ):
        parts.append(lines_of(table_lines(header, model, {}, {})))
    parts.append(lines_of(commented("[[gate.slices]]", SliceConfig)))
    return "\n\n".join(parts) + "\n"


def _sampling(plan: Plan) -> str:
    values, guesses = dict[str, Any](), dict[str, str]()
    if plan.drawn_negatives:
        values["drawn_negatives"] = plan.drawn_negatives
    if plan.is_positives_only and plan.negatives is None:
        guesses["drawn_negatives"] = "every row is a yes; what is learnt depends on how they are drawn"
    return lines_of(table_lines("[sampling]", SamplingConfig, values, guesses))


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
        yield lines_of(lines)


def _features(plan: Plan) -> Iterator[str]:
    lists = plan.lists()
    values: dict[str, Any] = {"service": SERVICE, **{role: names for role, names in lists.items() if names}}
    guesses = {role: "by the type of each column" for role in ("dense", "categorical", "embedding") if lists[role]}
    if lists["passthrough"]:
        guesses["passthrough"] = "inputs of the teacher that the student does not see"
    yield lines_of(table_lines("[features]", FeaturesConfig, values, guesses, without=["defaults"]))
    for context in plan.roles.context:
        shown = {"dtype": context.dtype, "default": plan.context_default(context.name, context.dtype)}
        guess = {"default": "its most frequent value" if context.dtype != "float" else "its mean"}
        header = f"[features.context.{key_text(context.name)}]"
        yield lines_of(table_lines(header, ContextFeature, shown, guess, brief=context is not plan.roles.context[0]))
    if defaults := plan.defaults():
        meaning = str(FeaturesConfig.model_fields["defaults"].description)
        lines = ["[features.defaults]", *prose(f"{meaning}; guessed: about the mean of each column, zeros of lists")]
        yield lines_of([*lines, *(f"{key_text(name)} = {toml_value(value)}" for name, value in defaults.items())])
    for i, entity in enumerate(("user", "item")):
        values = {"entity": entity, "push_source": f"{entity}_activity_push", "columns": plan.aggregates()}
        yield lines_of(table_lines("[[features.aggregates]]", AggregateConfig, values, {}, brief=i > 0))
    if not plan.profiles:
        yield lines_of(commented("[[features.profiles]]", ProfileConfig))
    for i, profile in enumerate(plan.profiles):
        columns = {name: name for name in profile.means}
        values = {"entity": profile.entity, "push_source": f"{profile.view}_push", "columns": columns}
        values["references"] = profile.references
        guess = {"columns": f"what follows from what is known of the {profile.entity}s"}
        yield lines_of(table_lines("[[features.profiles]]", ProfileConfig, values, guess, brief=i > 0))
