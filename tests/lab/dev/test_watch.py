"""What the terminal shows, and the counters that it is read from, which stay whole over a restart."""

import io

from rich.console import Console

from lab.dev.processes import Trouble
from lab.dev.run import end_line
from lab.dev.watch import Screen, StageMetrics, View, line_of, parse_samples

_VIEW = View(
    title="graft dev shop",
    seconds=12.0,
    events=3_000,
    read=1_200,
    dead_letters=0,
    examples=400,
    learned=384,
    events_per_second=812.4,
    lags={"stream": 12, "teacher": 0, "learner": None},
    cache_hit_rate=0.913,
    version="v000003",
    swaps=2,
    scores={"AUC of like": (0.7012, None)},
    served_scores={"AUC of like": (0.6512, 0.6408), "RMSE of stars": (1.1, 1.2)},
    requests=120,
    failed_requests=0,
    requests_per_second=19.8,
    p50_ms=2.04,
    p99_ms=9.4,
    troubles={"stream": Trouble(1, "Killed"), "learner": Trouble(0, "")},
)


def test_a_line_tells_everything() -> None:
    assert line_of(_VIEW) == (
        "[   12 s] events 1,200 of 3,000 read; examples 400, 384 learnt; events/s 812; "
        "lag stream 12, teacher 0, learner -; "
        "teacher cache 91.3% of examples had their logit; version v000003 after 2 swaps; "
        "student / control AUC of like 0.7012 / -; the same, served AUC of like 0.6512 / 0.6408, "
        "RMSE of stars 1.1000 / 1.2000; requests 120 (20/s), 0 failed; "
        "latency p50 2.0 ms, p99 9.4 ms; restarts 1; "
        "stream started again once; its last line was: Killed"
    )


def test_without_a_terminal_a_line_comes_at_most_every_five_seconds() -> None:
    out = io.StringIO()
    with Screen(Console(file=out)) as screen:
        screen.show(_VIEW)
        screen.show(_VIEW)
    assert out.getvalue() == line_of(_VIEW) + "\n"


def test_on_a_terminal_dead_letters_are_told_and_a_log_line_sends_nothing_to_the_terminal() -> None:
    troubled = _VIEW._replace(dead_letters=7, troubles={"stream": Trouble(2, "\x1b[31mred [bold]")})
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=True, width=200)) as screen:
        screen.show(troubled)
    assert "v000003 after 2 swaps" in out.getvalue()
    assert "1,200 of 3,000 read, 7 of them dead letters" in out.getvalue()
    assert "its last line was: ?[31mred [bold]" in out.getvalue()


def test_the_end_tells_why_events_became_dead_letters_and_what_sampling_has_left_out() -> None:
    view = _VIEW._replace(dead_letters=5)
    assert end_line(view, 2, 0, {"invalid": 1, "outside_window": 4}) == (
        "all 3,000 events are read, 384 examples learnt; 5 events became dead letters: 1 invalid, 4 outside_window; "
        "docs/dead-letters.md says why each does; 2 impressions still wait for feedback, as long as their window is "
        "open"
    )
    assert end_line(view, 0, 0, {}) == "all 3,000 events are read, 384 examples learnt"

    assert end_line(_VIEW, 0, 1_200, {}) == (
        "all 3,000 events are read, 384 examples learnt; 1,200 impressions were left out, as [sampling] says: see "
        "docs/sampling.md"
    )


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
    metrics.refresh()
    assert metrics.total("logits_total") == 10
