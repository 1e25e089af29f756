"""Requests that name a version: each is answered by that one, beside the champion, or told which names there are."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from features.spec import Feature
from student.serve import swap as swap_module
from student.versions.names import Reference
from student.versions.registry import Registry
from student.versions.served_posterior import UNIT
from student.versions.served_tensors import of_control
from tests.specs import spec_of
from tests.student.serve.test_server import BODY, Endpoint, publish, serving
from tests.student.versions.promoted import promote


@pytest.fixture
def endpoint(registry: Registry, redis_url: str) -> Iterator[Endpoint]:
    """A scorer with three versions, the second of which is champion and held."""
    for _ in range(3):
        publish(registry)
    promote(registry, "v000002")
    with serving(registry, redis_url) as running:
        running.wait_for("v000002")
        yield running


def rated_by(endpoint: Endpoint, version: str) -> tuple[str, float]:
    """Who answered, and its rating, by which version v00000N is known: it rates everything N."""
    status, reply = endpoint.post({**BODY, "version": version})
    assert status == 200, reply
    return reply["model_version"], reply["scores"]["rating"][0]


@pytest.mark.parametrize(
    ("named", "version", "rating"),
    [("v000001", "v000001", 1), ("3", "v000003", 3), ("candidate", "v000003", 3), ("champion", "v000002", 2)],
)
def test_a_request_is_answered_by_the_version_that_it_names(
    endpoint: Endpoint, named: str, version: str, rating: float
) -> None:
    assert rated_by(endpoint, named) == (version, rating)
    assert endpoint.post(BODY)[1]["model_version"] == "v000002"


def test_a_name_of_ones_own_is_followed_when_it_moves(endpoint: Endpoint) -> None:
    for version, rating in (("v000001", 1.0), ("v000003", 3.0)):
        endpoint.registry.point("mine", Reference(version), by="ann", why="a test")
        assert rated_by(endpoint, "mine") == (version, rating)


def test_the_control_serves_beside_the_champion_and_as_champion(registry: Registry, redis_url: str) -> None:
    publish(registry, weights={of_control(UNIT): [[0, 1], [0, 1], [9, 1]], of_control("head.rating.bias"): [9]})
    with serving(registry, redis_url) as endpoint:
        endpoint.wait_for("v000001")
        assert rated_by(endpoint, "control") == ("v000001-control", 9.0)
        assert rated_by(endpoint, "champion") == ("v000001", 1.0)
        promote(registry, "v000001-control")
        endpoint.wait_for("v000001-control")
        assert endpoint.post(BODY)[1]["scores"]["rating"] == [9.0] * 3
        assert rated_by(endpoint, "v000001") == ("v000001", 1.0)


@pytest.mark.parametrize("name", ["nobody", "v000009", "../../etc/passwd", "held"])
def test_a_version_that_there_is_not_is_a_422_that_says_what_there_is(endpoint: Endpoint, name: str) -> None:
    status, reply = endpoint.post({**BODY, "version": name})
    assert status == 422
    error = reply["error"]
    assert (error["field"], error["value"]) == ("version", name)
    assert "champion, candidate, control" in error["message"] or "there are v000001 to v000003" in error["message"]


@pytest.mark.parametrize("key", ["\\u0076ersion", "versio\\u006E", "\\u0076\\u0065\\u0072\\u0073\\u0069\\u006f\\u006e"])
def test_json_may_escape_letters_of_version(endpoint: Endpoint, key: str) -> None:
    body = json.dumps({**BODY, "KEY": "v000001"}).replace("KEY", key)
    assert endpoint.post(body.encode())[1]["model_version"] == "v000001"


@pytest.mark.parametrize("name", [1, None, "", "a" * 81, ["v000001"]])
def test_what_is_no_name_is_refused_by_the_contract(endpoint: Endpoint, name: object) -> None:
    status, reply = endpoint.post({**BODY, "version": name})
    assert (status, reply["error"]["field"]) == (422, "version")
    assert "a name of a version" in reply["error"]["allowed"]


def test_a_version_with_another_spec_answers_by_its_own_contract(registry: Registry, redis_url: str) -> None:
    other = spec_of(
        Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
        Feature(name="context:page", source="context", role="dense", dtype="int", default=0),
    )
    publish(registry, other)
    publish(registry)
    with serving(registry, redis_url) as endpoint:
        endpoint.wait_for("v000002")
        of_other = {"user_id": 1, "item_ids": [10], "context": {"page": 3}}
        assert endpoint.post(of_other)[0] == 422
        assert endpoint.post({**of_other, "version": "v000001"})[1]["model_version"] == "v000001"
        assert endpoint.post({**BODY, "version": "v000001"})[1]["error"]["field"] == "context.hour"
        assert endpoint.post(BODY)[0] == 200


def test_few_versions_stay_loaded_and_many_clients_may_ask_for_all(
    registry: Registry, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap_module, "_MOST_OTHERS", 2)
    for _ in range(6):
        publish(registry)
    with serving(registry, redis_url) as endpoint, ThreadPoolExecutor(4) as pool:
        endpoint.wait_for("v000006")
        asked = [int(n) for n in np.random.default_rng(0).integers(1, 7, 60)]
        found = list(pool.map(lambda n: rated_by(endpoint, f"v{n:06d}"), asked))
    assert found == [(f"v{n:06d}", float(n)) for n in asked]
