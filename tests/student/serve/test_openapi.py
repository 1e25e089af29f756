"""The OpenAPI document: valid, of the version that serves, and true, as schemathesis finds that attacks it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from features.spec import Feature
from student.serve import app as app_module
from student.serve.openapi import openapi_of
from student.versions.names import Reference
from student.versions.registry import Registry
from tests.specs import spec_of
from tests.student.serve.test_server import SPEC, Endpoint, publish, serving

# To JSON Schema 3.0 is an integer, to our contract it is none: so the attacked version has no integers.
OF_TEXTS = spec_of(
    Feature(name="item_id", source="item_id", role="categorical", dtype="str", default=None),
    Feature(name="context:price", source="context", role="dense", dtype="float", default=1.0),
    Feature(name="context:device", source="context", role="categorical", dtype="str", default=""),
).model_copy(update={"user_id_type": "str", "item_id_type": "str"})


@pytest.fixture
def endpoint(registry: Registry, redis_url: str) -> Iterator[Endpoint]:
    for _ in range(2):
        publish(registry, OF_TEXTS)
    with serving(registry, redis_url) as running:
        running.wait_for("v000002")
        yield running


def test_the_document_is_valid_with_a_version_and_without() -> None:
    validate(openapi_of("1.0", None, []))
    validate(openapi_of("1.0", SPEC, ["champion", "v000001"]))


def test_it_tells_the_types_of_the_version_that_serves(endpoint: Endpoint) -> None:
    document = endpoint.get("/openapi.json")[1]
    body = document["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["user_id"]["type"] == "string"
    assert list(body["properties"]["context"]["properties"]) == ["price", "device"]
    assert body["properties"]["version"]["enum"] == ["champion", "candidate", "control", "v000001", "v000002"]
    assert document["openapi"].startswith("3.1.")


def test_it_is_made_anew_when_what_it_tells_has_changed_and_not_for_each_who_asks(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = endpoint.get("/openapi.json")[1]
    with monkeypatch.context() as patch:
        patch.setattr(app_module, "openapi_of", None)  # a document that is made fails
        assert endpoint.get("/openapi.json") == (200, before)
    endpoint.registry.point("mine", Reference("v000001"), by="ann", why="a test")
    body = endpoint.get("/openapi.json")[1]["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]
    assert "mine" in body["schema"]["properties"]["version"]["enum"]


@pytest.mark.parametrize(
    "of",
    [
        ["--exclude-path-regex", "infer$"],
        # JSON Schema cannot say that a tensor has as many elements as its shape, so some of what fits it is refused.
        ["--include-path-regex", "infer$", "--exclude-checks", "positive_data_acceptance"],
    ],
    ids=["all but tensors", "tensors"],
)
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(endpoint: Endpoint, tmp_path: Path, of: list[str]) -> None:
    url = f"http://127.0.0.1:{endpoint.port}/openapi.json"
    options = ["--max-examples", "40", "--seed", "1", "--no-color", *of]
    command = [sys.executable, "-m", "schemathesis.cli", "run", url, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6_000:]
