"""Traces by OpenTelemetry, through its one door: spans over batches, linked to the messages in them.

Until `TRACING.start` nothing of OpenTelemetry is imported, and a span is an object that does nothing. The context of a
trace travels as ``traceparent`` (https://www.w3.org/TR/trace-context/), a header of messages and of requests.
"""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from itertools import islice
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from runtime.errors import GraftError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import SpanContext, Tracer

Traces = Literal["off", "otlp"]
Kind = Literal["PRODUCER", "CONSUMER", "SERVER"]

HEADER = "traceparent"

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_LENGTH = 55  # of version 00; what a later version has behind it is not passed on
_MOST_LINKS = 128  # OpenTelemetry's own limit of a span
_END_SECONDS = 3.0  # for the last spans to be sent when the process ends; a collector that is away takes no longer
_NOTHING = nullcontext()


class Tracing:
    """The traces of one process, and whether there are any."""

    def __init__(self) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None

    @property
    def is_on(self) -> bool:
        """Whether spans are recorded."""
        return self._tracer is not None

    def start(self, process: str, exporter: "SpanExporter | None" = None) -> None:
        """Record the spans of `process` from now on, and send them as OpenTelemetry's variables (OTEL_...) say.

        `exporter` takes the place of OTLP over HTTP. GraftError where the libraries are missing or a variable is wrong.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - off
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as error:
            raise GraftError(
                f"GRAFT_TRACES=otlp needs OpenTelemetry, and {error.name} is not installed; "
                "install it with pip install 'graft[otel]', or set GRAFT_TRACES=off"
            ) from None
        release = version("graft")
        try:
            resource = Resource.create({"service.version": release, **_service(process, os.environ)})
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        except ValueError as error:
            raise GraftError(
                f"GRAFT_TRACES=otlp: OpenTelemetry does not take its variables (OTEL_...): {error}"
            ) from None
        self._provider, self._tracer = provider, provider.get_tracer("graft", release)

    def end(self) -> None:
        """Send what is recorded, for a few seconds at most, and record no more."""
        if self._provider is not None:
            ending = Thread(target=self._provider.shutdown, name="traces end", daemon=True)  # it takes no time-out
            ending.start()
            ending.join(_END_SECONDS)
        self._provider = self._tracer = None

    def span(
        self,
        name: str,
        kind: Kind,
        *,
        parent: str | None = None,
        links: Iterable[str | None] = (),
        attributes: Mapping[str, str | int] | None = None,
    ) -> AbstractContextManager[Any]:
        """A span over the block, as OpenTelemetry's Span; None while traces are off.

        `parent` and `links` are the traceparents of what called and of the messages: one link for each that differs.
        """
        if self._tracer is None:
            return _NOTHING
        from opentelemetry import trace  # noqa: PLC0415 - off

        contexts = (context for text in dict.fromkeys(links) if (context := _context_of(text)))
        above = _context_of(parent)
        return self._tracer.start_as_current_span(
            name,
            context=trace.set_span_in_context(trace.NonRecordingSpan(above)) if above else None,
            kind=trace.SpanKind[kind],
            attributes=attributes,
            links=[trace.Link(context) for context in islice(contexts, _MOST_LINKS)],
        )

    def batch(
        self, name: str, count: int, traceparents: Iterable[str | None] = (), kind: Kind = "CONSUMER"
    ) -> AbstractContextManager[Any]:
        """A span over the work on `count` messages of Kafka, linked to their traces; none without messages."""
        if self._tracer is None or not count:
            return _NOTHING
        told: dict[str, str | int] = {"messaging.system": "kafka", "messaging.batch.message_count": count}
        return self.span(name, kind, links=traceparents, attributes=told)

    def traceparent(self) -> str | None:
        """Of the span that is open here; None without one."""
        if self._tracer is None:
            return None
        from opentelemetry import trace  # noqa: PLC0415 - off

        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


TRACING = Tracing()
"""This process'."""


def trace_id_of(traceparent: str) -> str | None:
    """The trace id in a traceparent; None where that has not its form."""
    found = _FORM.fullmatch(traceparent)
    return found[1] if found else None


def traceparent_in(headers: Iterable[tuple[str, bytes | None]]) -> str | None:
    """The traceparent among a message's headers, cut to the form of version 00; None without one in that form."""
    for name, value in headers:
        if name == HEADER and value and _FORM.fullmatch(text := value.decode("ascii", "replace")):
            return text[:_LENGTH]
    return None


def traced(traceparent: str | None) -> list[tuple[str, bytes]]:
    """The headers of a message of that trace; none without one."""
    return [(HEADER, traceparent.encode())] if traceparent else []


def _service(process: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The name of the service, where OTEL_SERVICE_NAME does not give it."""
    return {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": f"graft {process}".strip()}


def _context_of(traceparent: str | None) -> "SpanContext | None":
    found = _FORM.fullmatch(traceparent or "")
    if not found:
        return None
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - off

    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
