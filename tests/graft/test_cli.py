import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoints
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from graft.cli import _end_quickly, cli
from lab.embedded import free_port
from tests.disks import Disk

_GRAFT = [sys.executable, "-m", "graft"]


def _run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_GRAFT, *map(str, arguments)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _modules_after(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    code = f"""
import sys
from graft.cli import _end_quickly, cli
try:
    cli({list(arguments)!r})
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.split())


def test_help_lists_all_commands_by_what_one_wants_to_do_and_imports_none() -> None:
    printed = CliRunner().invoke(cli, ["--help"], terminal_width=200).output
    listed = {}
    for purpose in ("Start", "Run", "Look", "Repair"):
        rows = printed.partition(f"\n{purpose}:\n")[2].partition("\n\n")[0].splitlines()
        listed[purpose] = [row.strip().partition("  ")[0] for row in rows]
    assert listed["Start"][:2] == ["init", "check"]
    assert "student train" in listed["Run"]
    assert "student show" in listed["Look"]
    assert listed["Repair"][-1] == "reset"
    leaves = {" ".join(leaf) for leaf in _leaves(cli) if leaf[0] != "pair"} | {"pair"}
    assert {name for names in listed.values() for name in names} == leaves
    assert len(list(_leaves(cli))) <= 38
    assert not {"torch", "feast", "kafka", "onnxruntime", "pandas", "rich"} & _modules_after("--help")
    assert not {"torch", "feast", "kafka", "numpy"} & _modules_after("student", "--help")


def test_init_and_look_load_neither_torch_nor_kafka_and_look_no_feast(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,ts,clicked\n1,2,1700000000,1\n1,3,1700000001,0\n")
    assert not {"torch", "kafka", "feast"} & _modules_after("look", str(log))
    assert not {"torch", "kafka"} & _modules_after(  # Feast checks what it wrote
        "init", str(tmp_path / "new"), "--events", str(log), "--yes"
    )
    assert (tmp_path / "new" / "graft.toml").exists()


def _leaves(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, *path, name)
        else:
            yield (*path, name)


def test_an_unknown_command_is_answered_with_the_nearest_one_or_all_of_them() -> None:
    result = CliRunner().invoke(cli, ["chek"])
    assert (result.exit_code, "no such command 'chek'; did you mean check?" in result.output) == (2, True)
    result = CliRunner().invoke(cli, ["xyz"])
    assert "no such command 'xyz'; allowed are init, check, teacher, set-up, features" in result.output


def test_every_commands_help_has_an_example_of_it() -> None:
    commands = list(_leaves(cli))
    assert ("student", "bootstrap") in commands
    for command in commands:
        result = CliRunner().invoke(cli, [*command, "--help"])
        example = result.output.partition("Example:")[2].replace("--project my-pair ", "")
        assert f"graft {' '.join(command)}" in " ".join(example.split()), command


def test_a_misspelt_variable_is_named_and_the_exit_code_is_2() -> None:
    done = _run("student", "ls", GRAFT_VERSION="x", GRAFT_KAFKA="nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: GRAFT_VERSION: no such setting; did you mean GRAFT_VERSIONS?")
    assert any(line.startswith("error: GRAFT_KAFKA: must be host:port, such as localhost:9092") for line in lines)
    assert all(line.startswith("error: ") for line in lines)


def test_project_overrides_the_variable(tmp_path: Path) -> None:
    done = _run("--project", tmp_path / "a", "stream", "run", GRAFT_PROJECT=str(tmp_path / "b"))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/a/graft.toml: no such file; name the project folder with --project or GRAFT_PROJECT"
    ]


def test_a_missing_feature_spec_is_a_failure_that_names_the_command_to_run(sound_project: Path) -> None:
    done = _run("--project", sound_project, "teacher", "backfill", "--since", "30d")
    assert done.returncode == 1
    assert "run" not in done.stdout
    assert "graft features apply" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_absent_broker_is_a_failure_of_one_line(sound_project: Path, tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("")
    kafka = f"127.0.0.1:{free_port()}"
    done = _run("--project", sound_project, "replay", tmp_path / "events.jsonl", GRAFT_KAFKA=kafka)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: Kafka at {kafka} does not answer")


@pytest.mark.parametrize(
    "command",
    [
        "replya",
        "replay /no/such/file",
        "teacher backfill",
        "teacher backfill --since 30days",
        "features materialize --until yesterday",
        "student serve --port 0",
        "student train --fill-misses",
    ],
)
def test_wrong_usage_exits_with_2(command: str) -> None:
    done = CliRunner().invoke(cli, command.split())
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_the_scorer_starts_without_torch_and_feast_and_ends_at_sigterm(tmp_path: Path) -> None:
    code = """
import sys
from graft.cli import _end_quickly, cli
try:
    cli(["student", "serve"])
finally:
    print(*(m for m in ("torch", "feast", "pandas", "kafka") if m in sys.modules), "ended", flush=True)
"""
    variables = {"GRAFT_VERSIONS": str(tmp_path), "GRAFT_HTTP_PORT": str(free_port())}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "serving scores at http://127.0.0.1" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[0].split() == ["ended"]
    assert process.returncode == 0


def test_a_metrics_port_that_is_taken_is_a_failure(sound_project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = _run("--project", sound_project, "teacher", "run", GRAFT_METRICS_PORT=str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: GRAFT_METRICS_PORT: cannot listen on 127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("options", "level", "logged"),
    [([], "", "INFO"), (["-v"], "ERROR", "DEBUG"), (["--verbose"], "", "DEBUG"), (["-q"], "DEBUG", "WARNING")],
)
def test_verbose_and_quiet_override_the_log_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], level: str, logged: str
) -> None:
    environment = {"GRAFT_LOG_LEVEL": level, "GRAFT_VERSIONS": str(tmp_path)}
    assert CliRunner().invoke(cli, [*options, "student", "ls"], env=environment).exit_code == 0
    assert logging.getLevelName(logging.getLogger().level) == logged


def test_verbose_and_quiet_exclude_each_other() -> None:
    result = CliRunner().invoke(cli, ["-v", "-q", "student", "ls"])
    assert (result.exit_code, "--verbose and --quiet exclude each other" in result.output) == (2, True)


def test_the_shell_completes_commands_and_their_verbs() -> None:
    def completed(words: str) -> list[str]:
        variables = {"_GRAFT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        return [line.partition(",")[2] for line in _run(**variables).stdout.splitlines()]

    assert completed("graft st") == ["student", "stream", "study"]
    assert completed("graft student pr") == ["promote"]
    assert "--project" in completed("graft --")
    for shell in ("bash", "zsh", "fish"):
        assert "_graft_completion" in _run(_GRAFT_COMPLETE=f"{shell}_source").stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_command_that_is_interrupted_ends_with_the_signals_code(
    sound_project: Path, number: signal.Signals, code: int
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))  # takes connections and never answers
    # Not -m graft: where SIGINT is ignored around the tests, Python installs no handler for it.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import graft.cli as c; c.main()"
    (sound_project / "events.jsonl").write_text("")
    arguments = ["--project", str(sound_project), "replay", str(sound_project / "events.jsonl")]
    variables = {**os.environ, "GRAFT_KAFKA": f"127.0.0.1:{listening.getsockname()[1]}"}
    command = [sys.executable, "-c", program, *arguments]
    with listening, subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True) as process:
        listening.settimeout(30)
        connection, _ = listening.accept()
        with connection:
            process.send_signal(number)
            _, told = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in told


def test_a_command_of_the_laboratory_says_how_to_install_it_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graft.lazy_group._added", lambda: EntryPoints([]))
    result = CliRunner().invoke(cli, ["dev", "shop"])
    said = "'dev' is not installed: it is part of the laboratory, install that with 'pip install ./lab'"
    assert (result.exit_code, said in result.output) == (2, True)


def test_a_command_whose_libraries_are_not_installed_says_how_to_get_them(sound_project: Path) -> None:
    """As in the scorer's image, which has neither Feast nor torch."""
    for hidden, command, extra in (
        ("torch", "student train", "full"),
        ("feast", "features apply", "full"),
        ("fsspec", "student push s3://models/shop", "s3"),
    ):
        code = f"""
import sys
sys.modules["{hidden}"] = None
sys.argv = ["graft", "--project", {str(sound_project)!r}, *{command.split()!r}]
from graft.cli import main
main()
"""
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        said = f"error: this command needs {hidden}, which is not installed here: pip install 'graft[{extra}]', or use"
        assert done.stderr.startswith(said)
        assert "Traceback" not in done.stderr


def test_a_command_on_a_disk_that_takes_no_writes_says_which_folder_and_what_to_do(disk: Disk) -> None:
    disk.refuse_writes()
    folder = disk.folder / "pair"
    result = CliRunner().invoke(cli, ["pair", "make", "simulated", str(folder)])
    said = f"error: {folder}: Read-only file system; mount it for writing, or name another folder\n"
    assert (result.exit_code, result.stderr) == (1, said)


def test_the_end_is_quick_but_where_triton_would_print_what_it_calls_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(True))
    monkeypatch.setitem(sys.modules, "triton", sys)
    _end_quickly()
    assert frozen == []
    monkeypatch.delitem(sys.modules, "triton")
    _end_quickly()
    assert frozen == [True]
