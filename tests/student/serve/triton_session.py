"""What tritonclient gets of a scorer, as JSON: `python -m tests.student.serve.triton_session ADDRESS SESSION [JSON]`.

In a process of its own: tritonclient brings gevent, which changes how a process waits for its children.
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton


def _input(name: str, value: np.ndarray, datatype: str, *, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(value.shape), datatype)
    made.set_data_from_numpy(value, binary_data=binary)
    return made


def _inputs(*, binary: bool = True, hour: int | None = 3) -> list[triton.InferInput]:
    values = {"user_id": [1], "item_ids": [10, 11, 12]} | ({} if hour is None else {"context.hour": [hour]})
    return [_input(name, np.array(value, np.int64), "INT64", binary=binary) for name, value in values.items()]


def infer(client: triton.InferenceServerClient, *, binary_in: bool, binary_out: bool) -> Any:
    """All of a reply, and the bytes of each output."""
    outputs = [triton.InferRequestedOutput(task, binary_data=binary_out) for task in ("rating", "like")]
    found = client.infer("student", _inputs(binary=binary_in), outputs=outputs, request_id="a-1")
    values = {task: found.as_numpy(task).astype(np.float32).tobytes().hex() for task in ("like", "rating")}
    return {"told": found.get_response(), "values": values}


def defaults(client: triton.InferenceServerClient) -> Any:
    """Which outputs come when none is asked for, and which version answers as number 1."""
    found = client.infer("student", _inputs(hour=None)).get_response()
    first = client.infer("student", _inputs(), model_version="1").get_response()
    return {"outputs": [output["name"] for output in found["outputs"]], "version": first["model_version"]}


def health(client: triton.InferenceServerClient) -> Any:
    """Whether server and models are ready, and their metadata."""
    models = (("student", ""), ("student", "2"), ("student", "9"), ("other", ""))
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models": [client.is_model_ready(*model) for model in models],
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata("student"),
    }


def texts(client: triton.InferenceServerClient) -> Any:
    """The ratings of a user whose id is a text, sent as bytes and as JSON."""
    rest = [
        _input("item_ids", np.array([5], np.int64), "INT64", binary=True),
        _input("context.page", np.array([0.5], np.float32), "FP32", binary=True),
    ]
    user = np.array(["änn".encode()], np.object_)
    sent = [[_input("user_id", user, "BYTES", binary=binary), *rest] for binary in (True, False)]
    return [client.infer("student", inputs).as_numpy("rating").tolist() for inputs in sent]


SESSIONS = {of.__name__: of for of in (infer, defaults, health, texts)}


def main() -> None:
    address, session, *settings = sys.argv[1:]
    with triton.InferenceServerClient(address) as client:
        json.dump(SESSIONS[session](client, **json.loads(*settings or ["{}"])), sys.stdout)


if __name__ == "__main__":
    main()
