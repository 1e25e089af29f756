import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from graft.cli import cli
from lab.embedded import free_port

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
from graft.cli import cli
try:
    cli({list(arguments)!r})
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.split())


def test_help_lists_the_commands_in_the_order_of_the_path_then_the_laboratorys_and_imports_none() -> None:
    done = _run("--help")
    words = done.stdout.partition("Commands:")[2].split("\n")
    names = [line.split()[0] for line in words if line.strip()]
    assert names == ["check", "features", "replay", "stream", "dlq", "teacher", "student", "demo", "pair", "study"]
    assert not {"torch", "feast", "kafka", "onnxruntime", "pandas", "rich"} & _modules_after("--help")


def _leaves(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command that does something, as the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, *path, name)
        else:
            yield (*path, name)


def test_every_commands_help_has_an_example_of_it() -> None:
    commands = list(_leaves(cli))
    assert ("student", "bootstrap") in commands
    for command in commands:
        result = CliRunner().invoke(cli, [*command, "--help"])
        example = result.output.partition("Example:")[2].replace("--project my-pair ", "")
        assert f"graft {' '.join(command)}" in " ".join(example.split()), command


def test_a_misspelt_variable_is_named_and_the_exit_code_is_2() -> None:
    done = _run("student", "versions", GRAFT_VERSION="x", GRAFT_KAFKA="nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: GRAFT_VERSION: no such setting; did you mean GRAFT_VERSIONS?")
    assert any(line.startswith("error: GRAFT_KAFKA: must match") for line in lines)
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
    "arguments",
    [
        ["replya"],
        ["replay", "/no/such/file"],
        ["teacher", "backfill"],
        ["teacher", "backfill", "--since", "30 days"],
        ["features", "materialize", "--until", "yesterday"],
        ["student", "serve", "--port", "0"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_versions_are_listed_also_as_json(tmp_path: Path) -> None:
    assert "no versions yet" in _run("student", "versions", GRAFT_VERSIONS=str(tmp_path)).stdout
    assert json.loads(_run("student", "versions", "--json", GRAFT_VERSIONS=str(tmp_path)).stdout) == []


def test_the_scorer_starts_without_torch_and_feast_and_ends_at_sigterm(tmp_path: Path) -> None:
    code = """
import sys
from graft.cli import cli
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
        assert "serving http://127.0.0.1" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=10)[0].split() == ["ended"]
    assert process.returncode == 0


def test_a_metrics_port_that_is_taken_is_a_failure(sound_project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = _run("--project", sound_project, "teacher", "run", GRAFT_METRICS_PORT=str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: GRAFT_METRICS_PORT: cannot listen on 127.0.0.1:{port}")
