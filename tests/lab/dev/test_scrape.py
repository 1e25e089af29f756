"""Counters stay whole over a restart."""

from lab.dev.watch import StageMetrics, parse_samples


def _page(found: int, missed: int) -> str:
    return (
        "# TYPE logits_total counter\n"
        f'logits_total{{outcome="hit"}} {found}\nlogits_total{{outcome="miss"}} {missed}\n'
        "# TYPE lag gauge\n"
        f'lag{{topic="a"}} {found}\nlag{{topic="b"}} 1\n'
    )


def test_a_counter_sums_over_its_series_or_the_named_ones() -> None:
    metrics = StageMetrics(port=1)
    metrics.update(parse_samples(_page(7, 3)))
    assert metrics.total("logits_total") == 10
    assert metrics.total("logits_total", outcome="hit") == 7
    assert metrics.total("absent_total") == 0
    assert metrics.totals("logits_total", "outcome") == {"hit": 7, "miss": 3}
    assert metrics.totals("absent_total", "outcome") == {}


def test_a_restart_keeps_what_was_counted_before() -> None:
    metrics = StageMetrics(port=1)
    for page in (_page(7, 3), _page(2, 0), _page(5, 1), "", _page(1, 0)):
        metrics.update(parse_samples(page))
    assert metrics.total("logits_total", outcome="hit") == 7 + 5 + 1
    assert metrics.total("logits_total", outcome="miss") == 3 + 1


def test_a_gauge_is_the_newest_sum_and_none_before_the_first() -> None:
    metrics = StageMetrics(port=1)
    assert metrics.gauge("lag") is None
    metrics.update(parse_samples(_page(7, 3)))
    metrics.update(parse_samples(_page(2, 3)))
    assert metrics.gauge("lag") == 3
    assert metrics.gauge("lag", topic="a") == 2


def test_a_stage_that_does_not_answer_keeps_its_values() -> None:
    metrics = StageMetrics(port=1)
    metrics.update(parse_samples(_page(7, 3)))
    assert metrics.refresh() is False
    assert metrics.total("logits_total") == 10
