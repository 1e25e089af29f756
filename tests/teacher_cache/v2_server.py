"""A server of the Open Inference Protocol v2 for tests: computes what it is told to, and fails as it is told to."""

import json
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {"INT64": "<i8", "INT32": "<i4", "FP32": "<f4", "FP64": "<f8"}
_HEAD = "Inference-Header-Content-Length"


def _unchanged(_reply: dict[str, Any]) -> None:
    pass


Compute = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class RefusalError(Exception):
    """What the model answers to rows that it cannot compute."""

    def __init__(self, status: int, error: str) -> None:
        self.status, self.error = status, error


class V2Server:
    """One model. `faults` are taken one for each inference request: each gets the handler, and answers for the server.

    `seen` has of each inference request its headers and the number of its rows; `most` the most that were under way.
    """

    def __init__(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], compute: Compute) -> None:
        self.metadata: dict[str, Any] = {
            "name": "sister", "versions": ["7"], "platform": "test", "inputs": inputs, "outputs": outputs
        }  # fmt: skip
        self.extensions = ["binary_tensor_data"]
        self.compute, self.token = compute, ""
        self.faults: deque[Callable[[BaseHTTPRequestHandler], None]] = deque()
        self.seen: list[tuple[dict[str, str], int]] = []
        self.replied: Callable[[dict[str, Any]], None] = _unchanged
        self.under_way = self.most = 0
        self.gate: threading.Event | None = None
        self.lock = threading.Lock()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        if self.token and headers.get("Authorization") != f"Bearer {self.token}":
            return _error(401, "who are you?")
        if path == "/v2":
            return 200, json.dumps({"name": "t", "extensions": self.extensions}).encode(), {}
        model = path.removeprefix("/v2/models/sister").removeprefix("/versions/7")
        if model == "":
            return 200, json.dumps(self.metadata).encode(), {}
        if model != "/infer":
            return _error(404, f"no such model {path}")
        try:
            return self._infer(body, headers)
        except RefusalError as refusal:
            return _error(refusal.status, refusal.error)

    def _infer(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes, dict[str, str]]:
        size = int(headers.get(_HEAD, len(body)))
        asked = json.loads(body[:size])
        feeds, at = {}, size
        for one in asked["inputs"]:
            if "data" in one:
                values = np.array(one["data"], object if one["datatype"] == "BYTES" else _DTYPES[one["datatype"]])
            else:
                count = one["parameters"]["binary_data_size"]
                values, at = _from_binary(one["datatype"], body[at : at + count]), at + count
            feeds[one["name"]] = values.reshape(one["shape"])
        assert at == len(body)
        self.seen.append((dict(headers), max(len(one) for one in feeds.values())))
        found = self.compute(feeds)
        types = {one["name"]: one["datatype"] for one in self.metadata["outputs"]}
        reply: dict[str, Any] = {"model_name": "sister", "model_version": "7", "outputs": []}
        tail = b""
        for wanted in asked["outputs"]:
            tensor = np.asarray(found[wanted["name"]], _DTYPES[types[wanted["name"]]])
            output = {"name": wanted["name"], "datatype": types[wanted["name"]], "shape": list(tensor.shape)}
            if wanted.get("parameters", {}).get("binary_data"):
                output["parameters"] = {"binary_data_size": tensor.nbytes}
                tail += tensor.tobytes()
            else:
                output["data"] = [float(x) if np.isfinite(x) else None for x in tensor.reshape(-1)]
            reply["outputs"].append(output)
        self.replied(reply)
        head = json.dumps(reply).encode()
        return 200, head + tail, {_HEAD: str(len(head))} if tail else {}


def _from_binary(datatype: str, data: bytes) -> Any:
    if datatype != "BYTES":
        return np.frombuffer(data, _DTYPES[datatype])
    texts, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        texts.append(data[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return np.array(texts, object)


def _error(status: int, error: str) -> tuple[int, bytes, dict[str, str]]:
    return status, json.dumps({"error": error}).encode(), {}


@contextmanager
def running(server: V2Server, certificate: Path | None = None) -> Iterator[V2Server]:
    """The server on its port, or on a free one if that is 0; behind TLS with a certificate and its key (PEM)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        disable_nagle_algorithm = True  # else each answer waits 40 ms for the client's acknowledgement

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with server.lock:
                server.under_way += 1
                server.most = max(server.most, server.under_way)
                fault = server.faults.popleft() if server.faults else None
            try:
                if server.gate is not None:
                    server.gate.wait(10)
                if fault is not None:
                    fault(self)
                else:
                    self._answer(body)
            finally:
                with server.lock:
                    server.under_way -= 1

        def _answer(self, body: bytes) -> None:
            send(self, *server.answer(self.path, self.headers, body))

        def log_message(self, *_arguments: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: Any) -> None:
            """A client that went away is no news."""

    listening = Quiet(("127.0.0.1", server.port), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
    server.port = listening.server_address[1]
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """An answer with its length."""
    handler.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
