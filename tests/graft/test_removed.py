"""What earlier releases had is refused with what to do, wherever a project or a script still has it."""

from typing import Any, get_args, get_origin

import pytest
from click.testing import CliRunner
from pydantic import BaseModel

from graft import lazy_group, removed, settings
from graft.cli import cli
from graft.faults import alternatives
from graft.project import Project, load_project
from graft.removed import without_removed
from graft.settings import load_settings
from runtime.errors import ConfigurationError
from runtime.frozen_model import keys_of

KEYS_OF_47FF73D = """
top: name
tasks.*: name kind window_seconds served teacher_reference range
stream: topic_prefix partitions idle_seconds max_ahead_seconds max_unusable_share dedup_seconds commit_seconds
stream.retention: impressions_days feedback_days examples_days teacher_requests_days dead_letters_days
sampling: one_negative_of drawn_negatives drawn_by_popularity drawn_from_same
features: repo service user_entity item_entity dense categorical embedding passthrough defaults
features.context.*: dtype default
features.aggregates.*: entity push_source half_life_seconds columns
features.profiles.*: entity push_source references max_age_seconds columns
teacher: version onnx warn_fallback_share ttl_seconds every_seconds refresh_seconds wait_seconds trained_until
teacher: use_before_trained_until
teacher.server: url model model_version batch_rows concurrency timeout_seconds
teacher.dump: path model keys max_rows
teacher.tasks.*: name kind output
teacher.vectors.*: name output
teacher.inputs.*: default feature table file boundaries codes multiply add minimum maximum first features
teacher.inputs.*: separator buckets seed
distillation.*: teacher_task student_task loss adapter weight half_life_examples gradient_scale temperature
unshown: ratio
student: trunk cross_layers tower embedding_dim table_rows learning_rate embedding_learning_rate micro_batch
student: replay_batches replay_capacity remembered_ids seed
bootstrap: rows steps
publish: every_seconds keep
skew: window_examples most_differing most_drift
gate: policy after_examples error_rate bound largest_gain lost_share least_calibration largest_calibration
gate.slices.*: column value bound
"""
"""Each table of graft.toml, and its keys, as of that commit; ``*`` is the number of an entry or a name."""


def known_keys(model: type[BaseModel] = Project, table: str = "") -> set[str]:
    """Each key that graft.toml may have, with its tables before it."""
    found = set()
    for name, field in keys_of(model).items():
        inner, key, annotation = [], f"{table}{name}", field.annotation
        for branch in alternatives(annotation):
            entries: Any = get_args(branch)[-1:] if get_origin(branch) in (list, dict) else (branch,)
            below = f"{key}.*." if get_origin(branch) in (list, dict) else f"{key}."
            inner += [(below, a) for entry in entries for a in alternatives(entry)]
        models = [(below, a) for below, a in inner if isinstance(a, type) and issubclass(a, BaseModel)]
        found |= {key for below, a in models for key in known_keys(a, below)} if models else {key}
    return found


def test_each_key_of_an_earlier_release_is_still_known_or_answered_with_what_to_do():
    known, unanswered = known_keys(), []
    for table, _, names in (line.partition(": ") for line in KEYS_OF_47FF73D.strip().splitlines()):
        for name in names.split():
            keys = [*table.removeprefix("top").split("."), name] if table != "top" else [name]
            value: Any = 1
            for key in reversed(keys):
                value = [value] if key == "*" else {key: value}
            if ".".join(keys) not in known and not without_removed(value)[1]:
                unanswered.append(".".join(keys))
    assert unanswered == []


def test_a_project_has_at_most_90_keys_and_none_that_is_removed_is_known():
    known = known_keys() - {"teacher.inputs.*.kind"}
    assert len(known) <= 90
    assert not [key for key in removed.KEYS if key in known]


def test_a_removed_key_says_what_to_do_and_counts_entries_of_lists_alike(sound_project, monkeypatch):
    monkeypatch.setattr(removed, "KEYS", {"tasks.*.colour": "leave it out", "gone": "use student.seed"})
    path = sound_project / "graft.toml"
    path.write_text("gone = 1\n" + path.read_text().replace("window_seconds", "colour = 1\nwindow_seconds", 1))

    with pytest.raises(ConfigurationError) as refused:
        load_project(sound_project)

    assert sorted(str(fault) for fault in refused.value.faults) == [
        "graft.toml: gone: was removed; use student.seed",
        "graft.toml: tasks.0.colour: was removed; leave it out",
    ]


def test_a_removed_variable_says_what_to_do(monkeypatch):
    monkeypatch.setattr(settings, "VARIABLES", {"GRAFT_COLOUR": "set nothing"})

    with pytest.raises(ConfigurationError, match=r"^GRAFT_COLOUR: was removed; set nothing$"):
        load_settings({"GRAFT_COLOUR": "red"})


@pytest.mark.parametrize("words", [("paint",), ("student", "paint")])
def test_a_removed_command_says_what_to_do(monkeypatch, words):
    monkeypatch.setattr(lazy_group, "COMMANDS", {f"graft {' '.join(words)}": "use 'graft check'"})

    result = CliRunner().invoke(cli, words, prog_name="graft")

    assert result.exit_code == 2
    assert "'paint' was removed; use 'graft check'" in result.output


def test_the_former_name_of_the_stacks_project_says_the_present_one():
    with pytest.raises(ConfigurationError, match=r"^GRAFT_PAIR: was removed; docker compose takes GRAFT_PROJECT"):
        load_settings({"GRAFT_PAIR": "shop"})
    assert load_settings({"GRAFT_PAIR": ""}), "as docker compose says it where nobody has set it"
