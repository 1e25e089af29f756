"""What is counted of a run, what makes a demo fail, and the report of a canned run: curves, pictures, page."""

import base64
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lab.demo.report import STUDY_PAGE, Findings, Summary, by_arm, curve, served_age, write_report
from lab.demo.run import Joined, Outcome, freshness_seconds, joined, quantile
from lab.dev.client import Answer
from stream.tasks import TaskSpec
from student.evaluate.arms import ALL_ARMS
from student.evaluate.history import MetricsHistory, Point, read_history
from student.versions.manifest import ArmMetrics, Metrics
from student.versions.registry import Registry

_ARM_AUC = {
    "student": 0.70,
    "control": 0.68,
    "teacher": 0.66,
    "item_mean": 0.62,
    "served_student": 0.60,
    "served_control": 0.55,
}
_TASKS = [
    TaskSpec(name="like", kind="binary", window_seconds=60),
    TaskSpec(name="rating", kind="regression", window_seconds=60),
]


def _slices(examples: int, shift: float = 0.0) -> dict[str, Metrics]:
    like = {
        arm: ArmMetrics(count=examples, auc=auc + shift, log_loss=0.6, age_examples=710.0 if "served" in arm else None)
        for arm, auc in _ARM_AUC.items()
    }
    rating = {arm: ArmMetrics(count=examples, rmse=1.0 - auc / 10) for arm, auc in _ARM_AUC.items()}
    return {"whole": {"like": like, "rating": rating}, "recent": {"like": like}}


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    history = MetricsHistory(Registry(tmp_path).metrics_folder, 0)
    for examples, shift in ((500, 0.0), (1000, 0.01), (1500, 0.02)):
        history.add(examples, _slices(examples, shift))
    history.flush()
    return tmp_path


def _points(versions: Path) -> list[Point]:
    return read_history(Registry(versions).metrics_folder)


def test_a_curve_is_the_auc_against_examples(versions: Path) -> None:
    examples, auc = curve(_points(versions), "like", "student")
    assert examples == [500, 1000, 1500]
    assert auc == pytest.approx([0.70, 0.71, 0.72])


def test_an_arm_without_auc_has_an_empty_curve(versions: Path) -> None:
    assert curve(_points(versions), "rating", "student") == ([], [])
    assert curve(_points(versions), "love", "student") == ([], [])


def _findings(versions: Path, missing: int = 0, answers: int = 200) -> Findings:
    points = _points(versions)
    metrics = points[-1].slices["whole"] if points else {}
    outcome = Outcome(
        joined=Joined(impressions=1500, examples=1500 - missing, missing=missing, doubled=0, unknown=0),
        came_at_seconds=[4.0] * 600 + [8.0] * 400,
        answers=[Answer(i / 10, 1 + i % 7, f"v{1 + i // 50:06d}", False, int(i == 3), None) for i in range(answers)],
        cache_hit_rate=0.9,
        scorer_swaps=3,
        dead_letters=2,
        examples_of_version={"v000002": 600, "v000003": 1100},
        restarts={"stream": 1, "scorer": 0},
        versions=versions,
    )
    summary = Summary(
        data="simulated",
        **outcome.numbers(),
        auc={"like": by_arm(metrics, _TASKS[0])},
        rmse={"rating": by_arm(metrics, _TASKS[1])},
        served_age_examples=served_age(metrics),
        study=None if missing == 1500 else _STUDY,
        phases={"data": 2.0, "stream": 40.0},
        seconds=61.2,
    )
    return Findings(summary, _TASKS, points, outcome.answers, [600, 1100], "simulated pair <seed 7>")


_STUDY = {
    "events": 1200,
    "auc": {"like": {"student": 0.71, "lr": 0.66, "permuted": 0.68}},
    "served": {"like": {"student": 0.65, "lr": 0.61, "permuted": None}},
    "rmse": {"rating": {"student": 0.91}},
    "served_rmse": {"rating": {"student": 0.95}},
    "answer": ["The teacher helps `like`: better than <without>."],
}
_COMMAND = "graft demo --data simulated"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href") and value]


def test_the_report_holds_its_pictures_and_links_only_what_lies_beside_it(versions: Path, tmp_path: Path) -> None:
    index = write_report(tmp_path / "report", _findings(versions), _COMMAND)
    page = _Page()
    page.feed(index.read_text(encoding="utf-8"))
    start = "data:image/png;base64,"
    held = [base64.b64decode(link.removeprefix(start)) for link in page.links if link.startswith(start)]
    assert held == [(index.parent / name).read_bytes() for name in ("auc_like.png", "latency.png")]
    assert all(picture.startswith(b"\x89PNG") for picture in held)
    assert [link for link in page.links if not link.startswith(start)] == [STUDY_PAGE, "summary.json"]


def test_the_report_tells_values_differences_and_restarts(versions: Path, tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", _findings(versions), _COMMAND).read_text(encoding="utf-8")
    assert "<td>0.7200</td><td>0.7000</td><td>0.6800</td><td>0.6400</td><td>0.6200</td><td>0.5700</td>" in page
    assert "<td>0.5700</td><td>+0.0200</td><td>+0.0500</td>" in page
    assert "<td>0.9300</td><td>0.9320</td><td>0.9340</td><td>0.9380</td><td>0.9400</td><td>0.9450</td>" in page
    assert "<td>0.9450</td><td>-0.0020</td><td>-0.0050</td>" in page
    assert "710 examples behind, on average" in page
    assert "<td>p50 1.0 s, p95 2.0 s from an example on the topic to an answer that has learnt it</td>" in page
    assert "200, 0 failed, 1 sent again after a lost connection" in page
    assert "<td>stream 1</td>" in page
    assert "simulated pair &lt;seed 7&gt;" in page
    assert "$" not in page


def test_the_report_tells_what_could_refute_the_student(versions: Path, tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", _findings(versions), _COMMAND).read_text(encoding="utf-8")
    assert "The first 1,200 examples of this run" in page
    assert "<tr><th>lr</th><td>0.6600</td><td>0.6100</td></tr>" in page
    assert "<tr><th>permuted</th><td>0.6800</td><td>&ndash;</td></tr>" in page
    assert "<tr><th>student</th><td>0.9100</td><td>0.9500</td></tr>" in page
    assert "<li>The teacher helps <code>like</code>: better than &lt;without&gt;.</li>" in page


def test_the_report_shows_what_failed(versions: Path, tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", _findings(versions, missing=1), _COMMAND).read_text("utf-8")
    assert '<p class="bad">1 of 1500 impressions did not become an example</p>' in page
    assert "every request was answered" not in page


def test_the_report_of_a_run_that_learnt_nothing_is_still_a_report(tmp_path: Path) -> None:
    found = _findings(tmp_path / "none", missing=1500, answers=0)
    assert write_report(tmp_path / "report", found, _COMMAND).exists()


def test_summary_json_is_the_summary(versions: Path, tmp_path: Path) -> None:
    found = _findings(versions)
    written = json.loads(write_report(tmp_path, found, _COMMAND).with_name("summary.json").read_text("utf-8"))
    assert Summary.model_validate(written) == found.summary
    assert written["auc"]["like"] == pytest.approx({arm: auc + 0.02 for arm, auc in _ARM_AUC.items()})
    assert written["rmse"]["rating"] == pytest.approx({arm: 1 - auc / 10 for arm, auc in _ARM_AUC.items()})
    assert written["served_age_examples"] == 710
    assert (written["freshness_p50_s"], written["freshness_p95_s"]) == (1.0, 2.0)
    assert written["study"] == _STUDY


def test_each_task_has_the_score_of_all_six_arms() -> None:
    metrics = {
        "like": {"student": ArmMetrics(count=9, auc=0.7), "served_control": ArmMetrics(count=9, auc=0.6)},
        "rating": {"control": ArmMetrics(count=9, rmse=0.9)},
    }
    none = dict.fromkeys(ALL_ARMS)
    like, rating = _TASKS
    love = like.model_copy(update={"name": "love"})
    assert by_arm(metrics, like) == none | {"student": 0.7, "served_control": 0.6}
    assert by_arm(metrics, love) == none
    assert by_arm(metrics, rating) == none | {"control": 0.9}


def test_a_whole_demo_has_no_fault(versions: Path) -> None:
    assert _findings(versions).summary.faults == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"failed_requests": 2}, "2 of 200 score requests failed"),
        ({"requests": 0}, "never became ready"),
        ({"missing": 1}, "1 of 1500 impressions did not become an example"),
        ({"doubled": 1}, "1 examples came a second time"),
        ({"unknown": 1}, "1 examples have the id of no impression"),
    ],
)
def test_a_lost_request_or_example_is_a_fault_that_says_which(
    versions: Path, changed: Mapping[str, int], says: str
) -> None:
    (line,) = _findings(versions).summary.model_copy(update=changed).faults
    assert says in line


def answer(at_seconds: float, version: str | None) -> Answer:
    return Answer(at_seconds, 1.0, version, degraded=False, retries=0, fault=None if version else "HTTP 500")


def test_missing_doubled_and_unknown_examples_are_told_apart() -> None:
    times = {"a": 1, "b": 2, "x": 1}
    assert joined({"a", "b", "c"}, times) == Joined(impressions=3, examples=4, missing=1, doubled=1, unknown=1)


def test_an_example_is_fresh_with_the_first_answer_of_a_version_that_has_learnt_it() -> None:
    answers = [answer(1.0, "v1"), answer(2.0, None), answer(3.0, "v2"), answer(4.0, "v2"), answer(9.0, "v3")]
    seconds = freshness_seconds([0.5, 1.5, 3.5, 5.0, 6.0], {"v1": 0, "v2": 2, "v3": 4}, answers)
    assert seconds.tolist() == [2.5, 1.5, 5.5, 4.0, np.inf]


def test_an_older_version_that_answers_again_makes_nothing_fresher() -> None:
    answers = [answer(2.0, "v2"), answer(3.0, "v1"), answer(4.0, "unknown"), answer(5.0, "v3")]
    seconds = freshness_seconds([1.0, 1.0, 1.0], {"v1": 1, "v2": 2, "v3": 3}, answers)
    assert seconds.tolist() == [1.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("seconds", "median", "p99"),
    [([], None, None), ([np.inf], None, None), ([*range(19), np.inf], 10.0, None)],
    ids=["no example", "no answer", "19 of 20 answered"],
)
def test_a_quantile_that_no_answer_reached_is_none(
    seconds: list[float], median: float | None, p99: float | None
) -> None:
    seconds_N = np.array(seconds, np.float64)
    assert (quantile(seconds_N, 0.5), quantile(seconds_N, 0.99)) == (median, p99)
