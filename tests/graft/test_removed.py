"""What earlier releases had is refused with what to do, wherever a project or a script still has it."""

import pytest
from click.testing import CliRunner

from graft import lazy_group, removed, settings
from graft.cli import cli
from graft.project import load_project
from graft.settings import load_settings
from runtime.errors import ConfigurationError


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
