import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from runtime.errors import GraftError
from runtime.tracing import HEADER, Tracing, trace_id_of, traced, traceparent_in

opentelemetry = pytest.importorskip("opentelemetry.sdk.trace", reason="graft[otel] is not installed")
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exported: InMemorySpanExporter) -> Iterator[Tracing]:
    made = Tracing()
    made.start("stream run", exported)
    yield made
    made.end()


def ended(tracing: Tracing, exported: InMemorySpanExporter):
    tracing.end()
    return exported.get_finished_spans()


def test_a_span_is_in_the_trace_of_its_caller_and_names_the_process(tracing, exported):
    with tracing.span("POST /score", "SERVER", parent=PARENT, attributes={"http.route": "/score"}):
        own = tracing.traceparent()
    (span,) = ended(tracing, exported)
    assert (span.name, span.kind.name, dict(span.attributes)) == ("POST /score", "SERVER", {"http.route": "/score"})
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert own == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert span.resource.attributes["service.name"] == "graft stream run"


def test_a_batch_is_one_span_with_one_link_for_each_trace(tracing, exported):
    other = f"00-{'a' * 32}-{'b' * 16}-00"
    with tracing.batch("join events", 5, [PARENT, None, other, PARENT, "nonsense"]):
        pass
    (span,) = ended(tracing, exported)
    linked = [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links]
    assert linked == [f"{TRACE}-{SPAN}", f"{'a' * 32}-{'b' * 16}"]
    assert span.attributes["messaging.batch.message_count"] == 5
    assert span.parent is None


def test_no_messages_are_no_span_and_a_batch_has_at_most_128_links(tracing, exported):
    with tracing.batch("join events", 0, []) as nothing:
        assert (nothing, tracing.traceparent()) == (None, None)
    with tracing.batch("join events", 300, (f"00-{n:032x}-{SPAN}-01" for n in range(1, 301))):
        pass
    (span,) = ended(tracing, exported)
    assert (len(span.links), span.dropped_links) == (128, 0)


def test_what_a_block_raises_is_on_its_span_and_goes_on(tracing, exported):
    with pytest.raises(ValueError, match="no such thing"), tracing.batch("learn examples", 1, ()):
        raise ValueError("no such thing")
    (span,) = ended(tracing, exported)
    assert span.status.status_code.name == "ERROR"
    assert "no such thing" in str(span.events[0].attributes)


def test_what_is_off_records_nothing_and_imports_nothing():
    code = (
        "import sys; from runtime.tracing import TRACING\n"
        "with TRACING.span('a', 'SERVER') as one, TRACING.batch('b', 9, iter(())) as two: pass\n"
        "print(one, two, TRACING.traceparent(), TRACING.is_on, any(m.startswith('opentelemetry') for m in sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["None", "None", "None", "False", "False"]


def test_missing_libraries_and_wrong_variables_are_one_line(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096")
    with pytest.raises(GraftError, match=r"not take its variables \(OTEL_...\): max_export_batch_size must be less"):
        Tracing().start("replay")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(
        GraftError, match=r"opentelemetry.sdk.trace is not installed; install it with pip install 'graft"
    ):
        Tracing().start("replay")


def test_a_collector_that_is_away_holds_up_neither_the_work_nor_the_end(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    made = Tracing()
    made.start("replay")
    began = time.monotonic()
    with made.batch("send events", 1, ()):
        pass
    assert time.monotonic() - began < 0.5
    made.end()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([("other", b"1"), (HEADER, PARENT.encode())], PARENT),
        ([(HEADER, f"01-{TRACE}-{SPAN}-01-{'x' * 9000}".encode())], f"01-{TRACE}-{SPAN}-01"),
        ([(HEADER, None)], None),
        ([(HEADER, b"\xff\xfe")], None),
        ([(HEADER, PARENT.upper().encode())], None),
        ([], None),
    ],
)
def test_the_traceparent_of_a_message(headers, found):
    assert traceparent_in(headers) == found


def test_a_traceparent_has_a_trace_id_and_is_a_header():
    assert trace_id_of(PARENT) == TRACE
    assert trace_id_of("00-1-2-3") is None
    assert traced(PARENT) == [(HEADER, PARENT.encode())]
    assert traced(None) == []
