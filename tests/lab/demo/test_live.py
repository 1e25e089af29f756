"""What the terminal shows."""

import io

from rich.console import Console

from lab.demo.live import Screen, View, line_of

_VIEW = View(
    seconds=12.0,
    impressions=1000,
    examples=400,
    learned=384,
    events_per_second=812.4,
    lags={"stream": 12, "learner": None},
    cache_hit_rate=0.913,
    version="v000003",
    swaps=2,
    auc={"like": (0.7012, None)},
    served_auc={"like": (0.6512, 0.6408)},
    requests=120,
    failed_requests=0,
    requests_per_second=19.8,
    p50_ms=2.04,
    p99_ms=9.4,
    restarts=1,
)


def test_a_line_tells_everything() -> None:
    assert line_of(_VIEW) == (
        "[   12 s] examples 400 of 1,000 impressions, 384 learnt; events/s 812; lag stream 12, learner -; "
        "teacher cache 91.3% of examples had their logit; version v000003 after 2 swaps; "
        "AUC student / control like 0.7012 / -; the same, served like 0.6512 / 0.6408; requests 120 (20/s), 0 failed; "
        "latency p50 2.0 ms, p99 9.4 ms; restarts 1"
    )


def test_without_a_terminal_a_line_comes_at_most_every_five_seconds() -> None:
    out = io.StringIO()
    with Screen(Console(file=out)) as screen:
        screen.show(_VIEW)
        screen.show(_VIEW)
    assert out.getvalue() == line_of(_VIEW) + "\n"


def test_on_a_terminal_the_table_stays_after_the_end() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=True, width=100)) as screen:
        screen.show(_VIEW)
    assert "v000003 after 2 swaps" in out.getvalue()
