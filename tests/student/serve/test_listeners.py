"""Listeners of their own for metrics and administration: who answers what, and that nobody keeps another waiting."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from lab.embedded import free_port
from runtime.errors import GraftError
from runtime.telemetry import StopSignal
from student.versions.registry import Registry
from tests.student.serve.test_server import BODY, Endpoint, at, publish, serving, until

GROUPS = {
    "scores": {("POST", "/score"), ("GET", "/openapi.json"), ("POST", "/v2/models/student/infer")},
    "administration": {
        ("GET", "/v2"),
        ("GET", "/v2/models/student"),
        ("GET", "/v2/models/student/labels/champion/ready"),
    },
    "metrics": {("GET", "/metrics")},
}
EVERYWHERE = {("GET", path) for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")}


@pytest.fixture
def endpoints(tmp_path: Path, redis_url: str) -> Iterator[dict[str, Endpoint]]:
    """Of a scorer with three listeners."""
    registry = Registry(tmp_path)
    publish(registry)
    apart = {"administration": free_port(), "metrics": free_port()}
    with serving(registry, redis_url, **apart) as scores:
        scores.wait_for("v000001")
        of_others = {group: Endpoint(port, registry, StopSignal()) for group, port in apart.items()}
        yield {"scores": scores, **of_others}


@pytest.mark.parametrize("group", GROUPS)
def test_a_listener_answers_for_its_group_and_for_health(endpoints: dict[str, Endpoint], group: str) -> None:
    body = json.dumps(BODY).encode()
    answered = {
        (method, path)
        for method, path in EVERYWHERE.union(*GROUPS.values())
        if endpoints[group].ask(method, path, body if method == "POST" else None)[0].status != 404
    }
    assert answered == GROUPS[group] | EVERYWHERE


def test_the_document_and_a_refusal_tell_of_their_own_listener(endpoints: dict[str, Endpoint]) -> None:
    _, document = endpoints["scores"].get("/openapi.json")
    assert {"/score", "/readyz", "/v2/models/{model}/infer"} <= set(document["paths"])
    assert not {"/metrics", "/v2", "/v2/models/{model}"} & set(document["paths"])
    _, reply = endpoints["metrics"].get("/score")
    assert reply["error"]["allowed"] == "/healthz, /readyz, /v2/health/live, /v2/health/ready, /metrics"


def test_a_full_listener_leaves_the_others_alone(endpoints: dict[str, Endpoint]) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", endpoints["metrics"].port), 5))
        assert endpoints["scores"].post(BODY)[0] == 200
        assert endpoints["administration"].get("/v2")[0] == 200
        assert endpoints["metrics"].get("/readyz")[0] == 200  # in the place of the one that was idle longest


def test_the_listener_of_metrics_answers_until_the_last_request_has_ended(endpoints: dict[str, Endpoint]) -> None:
    scores, metrics = endpoints["scores"], endpoints["metrics"]
    body = json.dumps(BODY).encode()
    with closing(scores.connect()) as in_flight:
        in_flight.putrequest("POST", "/score")
        in_flight.putheader("content-length", str(len(body)))
        in_flight.endheaders(body[:10])
        scores.ask("GET", "/healthz")  # after which the request has been taken
        scores.stop.set()
        stopping = (503, {"status": "not ready", "reason": "the process is stopping"})
        until(lambda: metrics.get("/readyz") == stopping, "the stop")
        assert metrics.metric("graft_scorer_version") == 1
        in_flight.send(body[10:])
        reply = in_flight.getresponse()
        assert (reply.status, json.loads(reply.read())["model_version"]) == (200, "v000001")


def test_one_port_for_two_listeners_is_a_plain_error() -> None:
    port = free_port()
    with pytest.raises(GraftError, match=f"cannot listen on 127.0.0.1:{port}: .*; choose another one with"):
        at(port, metrics=port).__enter__()
    socket.create_server(("127.0.0.1", port)).close()  # none is left open
