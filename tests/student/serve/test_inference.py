"""The Open Inference Protocol v2, asked by tritonclient as it is on PyPI, and by hand for what that never sends."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from features.spec import Feature
from student.serve.inference import Asked, read_request
from student.serve.requests import RequestError
from student.versions.names import Reference
from student.versions.registry import Registry
from tests.specs import spec_of
from tests.student.serve.test_server import BODY, Endpoint, publish, serving

ITEMS = np.array([10, 11, 12], np.int64)
VARIED = {
    "embedding.weight": np.random.default_rng(0).normal(size=(16, 2)).tolist(),
    "trunk.0.weight": np.random.default_rng(1).normal(size=(4, 4)).tolist(),
    "tower.rating.weight": np.random.default_rng(2).normal(size=(2, 4)).tolist(),
    "head.rating.weight": [[0.7, -0.3]],
}


@pytest.fixture(autouse=True)
def _patient_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy test machine alone degrades no reply."""
    monkeypatch.setattr("student.serve.swap._READ_SECONDS", 5.0)


@pytest.fixture
def endpoint(tmp_path: Path, redis_url: str) -> Iterator[Endpoint]:
    """A scorer with two versions, the second of which serves."""
    registry = Registry(tmp_path / "versions")
    for _ in range(2):
        publish(registry, weights=VARIED)
    with serving(registry, redis_url) as running:
        running.wait_for("v000002")
        yield running


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{endpoint.port}") as made:
        yield made


def inputs(*, binary: bool, hour: int | None = 3) -> list[triton.InferInput]:
    values = {"user_id": np.array([1], np.int64), "item_ids": ITEMS}
    if hour is not None:
        values["context.hour"] = np.array([hour], np.int64)
    made = [triton.InferInput(name, list(value.shape), "INT64") for name, value in values.items()]
    for one, value in zip(made, values.values(), strict=True):
        one.set_data_from_numpy(value, binary_data=binary)
    return made


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tritonclient_gets_the_scores_of_score_bit_for_bit(
    endpoint: Endpoint, client: triton.InferenceServerClient, *, binary_in: bool, binary_out: bool
) -> None:
    outputs = [triton.InferRequestedOutput(task, binary_data=binary_out) for task in ("rating", "like")]
    found = client.infer("student", inputs(binary=binary_in), outputs=outputs, request_id="a-1")
    expected = endpoint.post(BODY)[1]["scores"]
    for task in ("like", "rating"):
        assert found.as_numpy(task).astype(np.float32).tobytes() == np.array(expected[task], np.float32).tobytes()
    told = found.get_response()
    assert (told["id"], told["model_name"], told["model_version"]) == ("a-1", "student", "v000002")
    assert len(set(expected["rating"])) == 3  # so that an order that is lost would be seen


def test_all_outputs_come_without_being_asked_for(client: triton.InferenceServerClient) -> None:
    found = client.infer("student", inputs(binary=True, hour=None))
    assert {output["name"] for output in found.get_response()["outputs"]} == {"like", "rating"}


def test_a_version_of_the_path_answers_by_number_and_a_label_by_name(
    endpoint: Endpoint, client: triton.InferenceServerClient
) -> None:
    found = client.infer("student", inputs(binary=True), model_version="1")
    assert found.get_response()["model_version"] == "v000001"
    endpoint.registry.point("mine", Reference("v000001"), by="ann", why="a test")
    body = {"inputs": [tensor("user_id", [1]), tensor("item_ids", [10, 11])]}
    for label, version in (("mine", "v000001"), ("control", "v000002-control"), ("candidate", "v000002")):
        assert post(endpoint, body, f"/v2/models/student/labels/{label}/infer").json()["model_version"] == version


def test_health_and_metadata(endpoint: Endpoint, client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("student")
    assert client.is_model_ready("student", "2")
    assert not client.is_model_ready("student", "9")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    told = client.get_model_metadata("student")
    assert (told["name"], told["versions"]) == ("student", ["v000001", "v000002"])
    assert told["inputs"] == [
        {"name": "user_id", "datatype": "INT64", "shape": [1]},
        {"name": "item_ids", "datatype": "INT64", "shape": [-1]},
        {"name": "context.hour", "datatype": "INT64", "shape": [1]},
    ]
    assert told["outputs"] == [{"name": task, "datatype": "FP32", "shape": [-1]} for task in ("like", "rating")]


def test_it_is_not_ready_before_the_first_version(tmp_path: Path, redis_url: str) -> None:
    with (
        serving(Registry(tmp_path / "versions"), redis_url) as endpoint,
        triton.InferenceServerClient(f"127.0.0.1:{endpoint.port}") as client,
    ):
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("student")
        with pytest.raises(InferenceServerException, match="no version is loaded"):
            client.infer("student", inputs(binary=True))


def test_ids_that_are_texts_are_bytes(tmp_path: Path, redis_url: str) -> None:
    page_number = Feature(name="context:page", source="context", role="dense", dtype="float", default=0.0)
    spec = spec_of(page_number).model_copy(update={"user_id_type": "str"})
    registry = Registry(tmp_path / "versions")
    publish(registry, spec)
    with serving(registry, redis_url) as endpoint:
        endpoint.wait_for("v000001")
        with triton.InferenceServerClient(f"127.0.0.1:{endpoint.port}") as client:
            user = triton.InferInput("user_id", [1], "BYTES")
            items, page = triton.InferInput("item_ids", [1], "INT64"), triton.InferInput("context.page", [1], "FP32")
            items.set_data_from_numpy(np.array([5], np.int64))
            page.set_data_from_numpy(np.array([0.5], np.float32))
            for binary in (True, False):
                user.set_data_from_numpy(np.array(["änn".encode()], np.object_), binary_data=binary)
                assert client.infer("student", [user, items, page]).as_numpy("rating").tolist() == [1.0]


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


@pytest.mark.parametrize("path", ["/v2/models/other/infer", "/v2/models/student/versions/9/infer"])
def test_what_there_is_not_is_a_404(endpoint: Endpoint, path: str) -> None:
    answer = post(endpoint, {"inputs": [USER, THREE]}, path)
    assert answer.status_code == 404
    assert "there is no model" in answer.json()["error"] or "there are v000001 to v000002" in answer.json()["error"]


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
