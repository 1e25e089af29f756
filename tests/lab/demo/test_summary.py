"""The summary's keys, and what makes a demo fail."""

import pytest

from lab.demo.outcome import Joined
from lab.demo.report import Summary, by_arm, faults
from stream.tasks import TaskSpec
from student.evaluate.arms import ALL_ARMS
from student.versions.manifest import ArmMetrics

_GOOD = Summary(
    data="simulated",
    impressions=3,
    examples=3,
    dead_letters=0,
    requests=40,
    failed_requests=0,
    swaps=5,
    score_p50_ms=1.0,
    score_p99_ms=2.0,
    freshness_p50_s=1.0,
    freshness_p95_s=2.0,
    cache_hit_rate=0.9,
    auc={},
    rmse={},
    served_age_examples=None,
    baselines=None,
    seconds=60.0,
)
_JOINED = Joined(impressions=3, examples=3, missing=0, doubled=0, unknown=0)


def test_the_summary_has_exactly_the_promised_keys() -> None:
    assert list(_GOOD.model_dump()) == [
        "data", "impressions", "examples", "dead_letters", "requests", "failed_requests", "swaps",
        "score_p50_ms", "score_p99_ms", "freshness_p50_s", "freshness_p95_s",
        "cache_hit_rate", "auc", "rmse", "served_age_examples", "baselines", "seconds",
    ]  # fmt: skip


def test_each_task_has_the_score_of_all_six_arms() -> None:
    metrics = {
        "like": {"student": ArmMetrics(count=9, auc=0.7), "served_control": ArmMetrics(count=9, auc=0.6)},
        "rating": {"control": ArmMetrics(count=9, rmse=0.9)},
    }
    none = dict.fromkeys(ALL_ARMS)
    like, love, rating = (
        TaskSpec.model_validate({"name": name, "kind": kind, "window_seconds": 60})
        for name, kind in (("like", "binary"), ("love", "binary"), ("rating", "regression"))
    )
    assert by_arm(metrics, like) == none | {"student": 0.7, "served_control": 0.6}
    assert by_arm(metrics, love) == none
    assert by_arm(metrics, rating) == none | {"control": 0.9}


def test_a_whole_demo_has_no_fault() -> None:
    assert faults(_GOOD, _JOINED) == []


@pytest.mark.parametrize(
    ("summary", "joined", "says"),
    [
        ({"failed_requests": 2}, {}, "2 of 40 score requests failed"),
        ({"requests": 0}, {}, "never became ready"),
        ({"examples": 2}, {"missing": 1}, "1 of 3 impressions did not become an example"),
        ({"examples": 4}, {"doubled": 1}, "1 examples came a second time"),
        ({"examples": 4}, {"unknown": 1}, "1 examples have the id of no impression"),
    ],
)
def test_a_lost_request_or_example_is_a_fault_that_says_which(
    summary: dict[str, int], joined: dict[str, int], says: str
) -> None:
    (line,) = faults(_GOOD.model_copy(update=summary), _JOINED._replace(**joined))
    assert says in line
