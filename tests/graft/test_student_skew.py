"""`graft student show --skew` prints what the learner has written, and says what to do where there is nothing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from graft.cli import cli
from student.evaluate.skew import REPORT_FILE, Age, SkewReport
from student.versions.registry import Registry


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["student", "show", "--skew", *arguments], env={"GRAFT_VERSIONS": str(folder)})


def written(folder: Path, content: bytes) -> Path:
    path = Registry(folder).metrics_folder / REPORT_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_a_report_is_told_with_its_worst_features(tmp_path: Path) -> None:
    report = SkewReport(
        rows=1_200,
        differing_rows=60,
        differing={f"f{n}": 60 - n for n in range(12)},
        ages={"items": Age(rows=1_200, mean_seconds=31.25, most_seconds=3_600)},
        drift={"price": 0.3, "age": 0.01},
    )
    written(tmp_path, report.model_dump_json().encode())
    done = run(tmp_path)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "1,200 served rows compared, 60 differ from their example (5.0%)"
    assert lines[1:11] == [f"  f{n} differs in {60 - n}" for n in range(10)]
    assert lines[11] == "  items: 31.2 s old on average when it was served, 3,600.0 s at most"
    assert lines[13:] == ["  price 0.300", "  age 0.010"]
    assert json.loads(run(tmp_path, "--json").output) == report.model_dump()


def test_a_report_without_rows_says_what_a_request_and_the_scorer_need(tmp_path: Path) -> None:
    written(tmp_path, SkewReport(rows=0, differing_rows=0, differing={}, ages={}).model_dump_json().encode())
    assert "requests must name 'impression_ids', and GRAFT_HTTP_SAMPLE be above 0" in run(tmp_path).output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is none; a learner process ('graft student train') writes it after its first comparison"),
        (b"{", "not a report of skew"),
        (b"[1]", "not a report of skew"),
        (b"\xff", "not a report of skew"),
        (b"[" * 100_000, "not a report of skew"),
    ],
)
def test_a_report_that_is_absent_or_damaged_is_one_line(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        written(tmp_path, content)
    done = run(tmp_path)
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output
