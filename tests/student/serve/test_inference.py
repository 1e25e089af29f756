"""The Open Inference Protocol v2, asked by tritonclient as it is on PyPI, and by hand for what that never sends."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.spec import Feature
from student.serve.inference import Asked, read_request
from student.serve.requests import RequestError
from student.versions.manifest import ArmMetrics
from student.versions.names import Reference
from student.versions.registry import Registry
from tests.specs import spec_of
from tests.student.serve.test_server import BODY, Endpoint, constant_tensors, draft, publish, serving

ROOT = Path(__file__).parents[3]
VARIED = {
    "embedding.weight": np.random.default_rng(0).normal(size=(16, 2)).tolist(),
    "trunk.0.weight": np.random.default_rng(1).normal(size=(4, 4)).tolist(),
    "tower.rating.weight": np.random.default_rng(2).normal(size=(2, 4)).tolist(),
    "head.rating.weight": [[0.7, -0.3]],
}


@pytest.fixture
def endpoint(registry: Registry, redis_url: str) -> Iterator[Endpoint]:
    """A scorer with two versions, the second of which serves."""
    for _ in range(2):
        publish(registry, weights=VARIED)
    with serving(registry, redis_url) as running:
        running.wait_for("v000002")
        yield running


def triton(endpoint: Endpoint, session: str, **settings: Any) -> Any:
    """What tritonclient gets in one of the sessions of triton_session.py."""
    module = "tests.student.serve.triton_session"
    command = [sys.executable, "-m", module, f"127.0.0.1:{endpoint.port}", session, json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_gets_the_scores_of_score_bit_for_bit(
    endpoint: Endpoint, *, binary_in: bool, binary_out: bool
) -> None:
    found = triton(endpoint, "infer", binary_in=binary_in, binary_out=binary_out)
    expected = endpoint.post(BODY)[1]["scores"]
    assert found["values"] == {
        task: np.array(expected[task], np.float32).tobytes().hex() for task in ("like", "rating")
    }
    told = found["told"]
    assert (told["id"], told["model_name"], told["model_version"]) == ("a-1", "student", "v000002")
    assert len(set(expected["rating"])) == 3  # so that an order that is lost would be seen


def test_all_outputs_come_without_being_asked_for_and_a_version_by_number(endpoint: Endpoint) -> None:
    found = triton(endpoint, "defaults")
    assert (sorted(found["outputs"]), found["version"]) == (["like", "rating"], "v000001")


def test_a_label_answers_by_name(endpoint: Endpoint) -> None:
    endpoint.registry.point("mine", Reference("v000001"), by="ann", why="a test")
    body = {"inputs": [tensor("user_id", [1]), tensor("item_ids", [10, 11])]}
    for label, version in (("mine", "v000001"), ("control", "v000002-control"), ("candidate", "v000002")):
        assert post(endpoint, body, f"/v2/models/student/labels/{label}/infer").json()["model_version"] == version


def test_health_and_metadata(endpoint: Endpoint) -> None:
    found = triton(endpoint, "health")
    assert (found["live"], found["ready"], found["models"]) == (True, True, [True, True, False, False])
    assert found["server"]["extensions"] == ["binary_tensor_data"]
    told = found["model"]
    assert (told["name"], told["versions"]) == ("student", ["v000001", "v000002"])
    assert told["inputs"] == [
        {"name": "user_id", "datatype": "INT64", "shape": [1]},
        {"name": "item_ids", "datatype": "INT64", "shape": [-1]},
        {"name": "context.hour", "datatype": "INT64", "shape": [1]},
    ]
    assert told["outputs"] == [{"name": task, "datatype": "FP32", "shape": [-1]} for task in ("like", "rating")]
    properties = told["properties"]
    assert (properties["version"], properties["examples"], properties["offsets"]) == ("v000002", "0", "{}")
    published, since = (datetime.fromisoformat(properties[name]) for name in ("published_at", "serving_since"))
    assert published <= since <= datetime.now(UTC)
    assert "probabilities" not in properties


def test_a_version_that_has_learnt_drawn_negatives_says_what_its_probabilities_are(
    registry: Registry, redis_url: str
) -> None:
    metrics = {"like": {"student": ArmMetrics(count=10, positives=2).against_drawn()}}
    of_nobody_shown = {"like": {"student": ArmMetrics(count=10, positives=2, auc_against_drawn=0.7)}}
    for learnt in (metrics, of_nobody_shown):
        of = draft().model_copy(update={"metrics": learnt})
        registry.publish(of, constant_tensors(of, 1.0), {}, {})
    with serving(registry, redis_url) as endpoint:
        endpoint.wait_for("v000002")
        told = [endpoint.get(f"/v2/models/student/versions/{number}")[1]["properties"] for number in (1, 2)]
    assert "probabilities" not in told[0]
    assert told[1]["probabilities"].startswith("of an item among itself and the negatives that were drawn beside it")


def test_ids_that_are_texts_are_bytes(tmp_path: Path, redis_url: str) -> None:
    page_number = Feature(name="context:page", source="context", role="dense", dtype="float", default=0.0)
    spec = spec_of(page_number).model_copy(update={"user_id_type": "str"})
    registry = Registry(tmp_path / "versions")
    publish(registry, spec)
    with serving(registry, redis_url) as endpoint:
        endpoint.wait_for("v000001")
        assert triton(endpoint, "texts") == [[1.0], [1.0]]


def tensor(name: str, data: list[Any], datatype: str = "INT64", **other: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **other}


def post(endpoint: Endpoint, body: Any, path: str = "/v2/models/student/infer", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"http://127.0.0.1:{endpoint.port}{path}", content=content, headers=headers, timeout=10)


USER, THREE = tensor("user_id", [1]), tensor("item_ids", [10, 11, 12])


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "Invalid JSON"),
        ([], 400, "should be an object"),
        ({"inputs": 3}, 400, "inputs"),
        ({"inputs": [USER]}, 422, "item_ids: Field required"),
        ({"inputs": [USER, THREE, THREE]}, 400, "item_ids: allowed is one input of each name"),
        ({"inputs": [USER, THREE, tensor("moon", [1])]}, 422, "moon"),
        (
            {"inputs": [USER, THREE, tensor("version", ["v000001"], "BYTES")]},
            400,
            "allowed is user_id, item_ids",
        ),
        ({"inputs": [USER, THREE, tensor("context.hour", [1, 2])]}, 400, "context.hour: allowed is one element"),
        ({"inputs": [USER, THREE, tensor("context.hour", [1.5], "FP32")]}, 422, "context.hour"),
        ({"inputs": [tensor("user_id", ["1"], "BYTES"), THREE]}, 422, "user_id"),
        ({"inputs": [USER, tensor("item_ids", [1], shape=[2])]}, 400, "as many elements as its shape [2] has"),
        ({"inputs": [USER, tensor("item_ids", list(range(1_001)))]}, 400, "at most 1000 elements"),
        ({"inputs": [USER, tensor("item_ids", [1], shape=[2**40, 2**40])]}, 400, "at most 1000 elements"),
        ({"inputs": [USER, tensor("item_ids", [1], shape=[-1])]}, 400, "shape"),
        ({"inputs": [USER, tensor("item_ids", [1], "FP8")]}, 400, "datatype"),
        ({"inputs": [USER, THREE], "outputs": [{"name": "love"}]}, 400, "outputs: allowed is any of like, rating"),
    ],
)
def test_an_error_is_one_sentence_that_says_what_is_allowed(
    endpoint: Endpoint, body: Any, status: int, said: str
) -> None:
    answer = post(endpoint, body)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("other", "there is no model"),
        ("student/versions/9", "there are v000001 to v000002"),
        # Python converts no more than 4,300 digits, and no file has so long a name.
        (f"student/versions/{'9' * 5_000}", "no version has the name"),
        (f"student/versions/v{'9' * 5_000}", "no version has the name"),
    ],
    ids=["a model", "a version", "a long number", "a long version"],
)
def test_what_there_is_not_is_a_404(endpoint: Endpoint, path: str, said: str) -> None:
    answer = post(endpoint, {"inputs": [USER, THREE]}, f"/v2/models/{path}/infer")
    assert (answer.status_code, said in answer.json()["error"]) == (404, True)


def test_an_output_that_is_asked_for_many_times_comes_once(endpoint: Endpoint) -> None:
    asked = [*[{"name": "rating"}] * 200, {"name": "like"}, {"name": "rating"}]
    found = post(endpoint, {"inputs": [USER, THREE], "outputs": asked}).json()["outputs"]
    assert [(output["name"], output["shape"]) for output in found] == [("rating", [3]), ("like", [3])]


def test_nested_data_is_read_in_its_order(endpoint: Endpoint) -> None:
    nested = tensor("item_ids", [[12, 10], [11, 10]], shape=[2, 2])
    found = post(endpoint, {"inputs": [USER, nested]}).json()["outputs"]
    scores = endpoint.post({"user_id": 1, "item_ids": [12, 10, 11, 10]})[1]["scores"]
    assert {output["name"]: output["data"] for output in found} == scores


def test_bytes_that_do_not_fit_what_the_request_says_are_refused(endpoint: Endpoint) -> None:
    told = {"name": "item_ids", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [USER, told]}).encode()
    good = head + struct.pack("<2q", 10, 11)
    length = "Inference-Header-Content-Length"
    assert post(endpoint, good, **{length: str(len(head))}).status_code == 200
    size = len(head)
    for body, said in ((good[:-1], size), (good + b"x", size), (good, size + 17), (good, "x"), (good, "9" * 30)):
        answer = post(endpoint, body, **{length: str(said)})
        assert (answer.status_code, list(answer.json())) == (400, ["error"])


def read_or_refused(body: bytes, header_length: str | None) -> bool:
    try:
        return isinstance(read_request(body, header_length), Asked)
    except RequestError as error:
        return error.status == 400


@given(st.binary(max_size=200), st.none() | st.integers(0, 250).map(str) | st.text("0123456789x-", max_size=12))
def test_no_bytes_are_a_fault_of_ours(body: bytes, header_length: str | None) -> None:
    assert read_or_refused(body, header_length)


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)
_inputs = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["user_id", "item_ids", "context.hour", ""]),
        "shape": st.lists(st.integers(0, 5), max_size=3),
    },
    optional={
        "datatype": st.sampled_from(["INT64", "BYTES", "FP32", "X"]),
        "data": _json_values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(0, 40)}),
    },
)


@given(st.lists(_inputs, max_size=4), st.binary(max_size=60))
def test_no_tensors_are_a_fault_of_ours(given_inputs: list[Any], tail: bytes) -> None:
    head = json.dumps({"inputs": given_inputs}).encode()
    assert read_or_refused(head + tail, str(len(head)))
