from pathlib import Path

import pytest

from graft.project import load_project
from graft.removed import KEYS
from runtime.errors import ConfigurationError

_VALID = """
name = "tiny"

[[tasks]]
name = "like"
kind = "binary"
window_seconds = 60

[[tasks]]
name = "rating"
kind = "regression"
window_seconds = 60
served = false
teacher_reference = "stars"

[features]
service = "ranking"
dense = ["user_stats:count"]

[[features.aggregates]]
entity = "user"
push_source = "user_stats_push"
columns = {count = "count", mean = "mean(like)"}

[teacher]
version = "t1"
onnx = "teacher.onnx"
tasks = [
  {name = "like", kind = "binary", output = "like"},
  {name = "stars", kind = "regression", output = "stars"},
]
[teacher.inputs.age]
kind = "feature"
feature = "user_profile:age"
default = 30

[[distillation]]
teacher_task = "like"
student_task = "like"

[[distillation]]
teacher_task = "stars"
student_task = "rating"
"""


def _faults(folder: Path, *replacements: tuple[str, str]) -> tuple[str, ...]:
    text = _VALID
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "graft.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_project(folder)
    return caught.value.faults


def test_a_valid_project_knows_its_folder_and_topics(tmp_path: Path) -> None:
    (tmp_path / "graft.toml").write_text(_VALID + '\n[stream]\ntopic_prefix = "tiny-"\n')
    project = load_project(tmp_path)
    assert project.folder == tmp_path
    assert project.repo == tmp_path / "feature_repo"
    assert project.topics.impressions == "tiny-impressions"


_KIND = (
    "teacher.inputs.age.kind: must be one of default, feature, lookup, bucket, linear, log, vocabulary, concat, hash"
)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('name = "tiny"', 'name = "tiny"\nstraem = {}', "straem: no such key; did you mean stream?"),
        ('name = "tiny"', 'name = "tiny"\nfolder = "x"', "folder: no such key"),
        ('kind = "binary"', 'kind = "bool"', "tasks.0.kind: must be 'binary' or 'regression', got 'bool'"),
        ("window_seconds = 60", "window = 60", "tasks.0.window: no such key; did you mean window_seconds?"),
        ("window_seconds = 60", "window = 60", "tasks.0.window_seconds: is missing"),
        ("window_seconds = 60", "window_seconds = 0", "tasks.0.window_seconds: must be > 0, got 0"),
        ("window_seconds = 60", "window_seconds = []", "tasks.0.window_seconds: must be a number, got []"),
        (
            'student_task = "like"',
            'student_task = "like"\nweight = 1000',
            "distillation.0.weight: must be <= 100, got 1000",
        ),
        ('dense = ["user_stats:count"]', 'dense = "a"', "features.dense: must be a list, got 'a'"),
        ('feature = "user_profile:age"', "", "teacher.inputs.age.feature: is missing"),
        (
            'feature = "user_profile:age"',
            "featrue = 1",
            "teacher.inputs.age.featrue: no such key; did you mean feature?",
        ),
        (
            'kind = "feature"',
            "",
            f"{_KIND}, got nothing",
        ),
        (
            'kind = "feature"\nfeature = "user_profile:age"\ndefault = 30',
            'kind = "x"',
            f"{_KIND}, got 'x'",
        ),
        ('name = "rating"', 'name = "like"', "tasks: the name 'like' stands 2 times, must be unique"),
        (
            '{name = "stars", kind = "regression"',
            '{name = "like", kind = "binary"',
            "teacher.tasks.1.name: 'like' stands for an earlier task already; names must differ",
        ),
        (
            'teacher_reference = "stars"',
            'teacher_reference = "star"',
            "tasks.1.teacher_reference: no such teacher task, got 'star'; did you mean stars?",
        ),
        (
            'teacher_reference = "stars"',
            'teacher_reference = "like"',
            "tasks.1.teacher_reference: 'like' is binary, but 'rating' is regression; both must be of one kind",
        ),
        (
            'teacher_task = "like"',
            'teacher_task = "likes"',
            "distillation.0.teacher_task: no such teacher task, got 'likes'; did you mean like?",
        ),
        (
            'student_task = "like"',
            'student_task = "love"',
            "distillation.0.student_task: no such student task, got 'love'; allowed are like, rating",
        ),
        (
            'student_task = "like"',
            'student_task = "rating"',
            "distillation.0.student_task: 'rating' is regression, but 'like' is binary; both must be of one kind",
        ),
        (
            'student_task = "like"',
            'student_task = "like"\nschedule = "off"',
            ("distillation.0.schedule: no such key; allowed are teacher_task, student_task, weight, gradient_scale"),
        ),
        (
            'student_task = "like"',
            "",
            (
                "distillation.0: student_task is missing: name the task that means the same, or remove this table "
                "(a tower of its own was worth nothing: docs/decisions/006-distillation.md)"
            ),
        ),
        (
            'teacher_task = "stars"',
            'teacher_task = "like"',
            "distillation: each teacher task may be distilled once, got like more often",
        ),
        (
            'name = "tiny"',
            'name = "tiny"\nstudent = {replay_capacity = 0}',
            f"student.replay_capacity: was removed; {KEYS['student.replay_capacity']}",
        ),
        (
            'name = "tiny"',
            'name = "tiny"\ngate = { policy = "older" }',
            "gate.policy: must be 'newest', 'proven' or 'off', got 'older'",
        ),
        (
            'name = "tiny"',
            'name = "tiny"\ngate = { slices = [{ column = "devise", value = "tv" }] }',
            "gate.slices.0.column: must be one of features.categorical, got 'devise'",
        ),
        (
            'name = "tiny"',
            'name = "tiny"\ngate = { slices = [{ column = "a", value = 1 }, { column = "a", value = "1" }] }',
            "gate: slices must differ, got a=1 more than once",
        ),
        (
            "mean(like)",
            "mean(love)",
            "features.aggregates.0.columns.mean: no such task, got 'love'; allowed are like, rating",
        ),
        (
            "mean(like)",
            "max(like)",
            (
                "features.aggregates.0.columns.mean: must be count, sum(TASK), mean(TASK) or "
                "rate(TASK, PRIOR, STRENGTH), got 'max(like)'"
            ),
        ),
        (
            'push_source = "user_stats_push"',
            'push_source = "user_stats_push"\nhalf_life_seconds = 0',
            "features.aggregates.0.half_life_seconds: must be > 0, got 0",
        ),
        (
            "window_seconds = 60",
            "window_seconds = 60\nserved = false",
            "tasks: none is served; set served = true for what the endpoint shall answer",
        ),
    ],
)
def test_a_fault_names_its_key_the_value_and_what_is_allowed(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert f"graft.toml: {fault}" in _faults(tmp_path, (old, new))


def test_a_value_of_several_types_is_one_fault(tmp_path: Path) -> None:
    faults = _faults(tmp_path, ("default = 30", "default = {a = 1}"))
    assert faults == (
        "graft.toml: teacher.inputs.age.default: must be of type int or float or str or list, got {'a': 1}",
    )


@pytest.mark.parametrize(
    ("text", "words"), [(None, "no such file"), ("a = [", "not valid TOML"), (b"\xff", "not valid")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str | bytes | None, words: str) -> None:
    if text is not None:
        (tmp_path / "graft.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=words) as caught:
        load_project(tmp_path)
    assert str(tmp_path / "graft.toml") in str(caught.value)


_MOMENT = "teacher.trained_until: must be an ISO 8601 time with its zone such as 2026-01-31T12:00:00Z, got "


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("2026-01-31T12:00:00", "2026-01-31 12:00:00"),
        ('"2026-01-31T12:00:00"', "2026-01-31T12:00:00"),
        ("2026-01-31", "2026-01-31"),
        ('"yesterday"', "yesterday"),
        ("1769860800", "1769860800"),
        ("true", "True"),
    ],
)
def test_the_end_of_the_training_data_is_a_time_with_its_zone(tmp_path: Path, value: str, shown: str) -> None:
    faults = _faults(tmp_path, ('version = "t1"', f'version = "t1"\ntrained_until = {value}'))
    assert faults == (f"graft.toml: {_MOMENT}{shown}",)


@pytest.mark.parametrize(
    ("value", "from_ms"),
    [
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ('"2026-01-31T13:00:00+01:00"', 1_769_860_800_000),
        ("2026-01-31T12:00:00.0001Z", 1_769_860_800_001),  # an example of that millisecond came before
        ("1960-01-01T00:00:00Z", 0),
    ],
)
def test_logits_are_used_from_the_first_millisecond_after_it(tmp_path: Path, value: str, from_ms: int) -> None:
    text = _VALID.replace('version = "t1"', f'version = "t1"\ntrained_until = {value}')
    (tmp_path / "graft.toml").write_text(text)
    assert load_project(tmp_path).teacher.logits_from_ms == from_ms


_NO_BINARY_TASK = _VALID.replace('kind = "binary"\nwindow', 'kind = "regression"\nwindow').partition(
    "[[distillation]]"
)[0]


@pytest.mark.parametrize(
    ("project", "table", "fault"),
    [
        (_VALID, "drawn_negatives = 51", "drawn_negatives: must be <= 50, got 51"),
        (_VALID, "drawn_by_popularity = 0.5", "drawn_by_popularity: nothing is drawn"),
        (_NO_BINARY_TASK, "one_negative_of = 5", "one_negative_of: no task is binary"),
        (_NO_BINARY_TASK, "drawn_negatives = 2", "drawn_negatives: no task is binary"),
    ],
)
def test_negatives_that_cannot_be_sampled_are_refused(tmp_path: Path, project: str, table: str, fault: str) -> None:
    (tmp_path / "graft.toml").write_text(f"{project}\n[sampling]\n{table}\n")
    with pytest.raises(ConfigurationError) as error:
        load_project(tmp_path)
    assert fault in str(error.value)
