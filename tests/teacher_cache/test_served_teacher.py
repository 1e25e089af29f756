"""A teacher behind HTTP: what it sends, what it does when the server fails, and that a secret is nowhere told."""

import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.embedded import free_port
from runtime.errors import ConfigurationError
from runtime.inference_protocol import TensorError
from runtime.outage import Outage, wait_for
from runtime.telemetry import StopSignal
from teacher_cache.cache.generation import differences, generation_of
from teacher_cache.config import TeacherConfig
from teacher_cache.kinds import model_server
from teacher_cache.kinds.computed_teacher import TeacherUnavailableError
from teacher_cache.kinds.load import load_teacher
from teacher_cache.kinds.served_teacher import read_reply
from teacher_cache.teacher import ServerAccess, Teacher, TeacherOutputError
from tests.specs import spec_of
from tests.teacher_cache.kinds import LIKE_UI, TASKS, v2_server
from tests.teacher_cache.v2_server import RefusalError, V2Server, running, send

_ROWS = {"user": np.array([1, 2, 3]), "item": np.array([4, 5, 0])}
_LIKES = [LIKE_UI[1, 4], LIKE_UI[2, 5], LIKE_UI[3, 0]]
_NOBODY = ServerAccess()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[V2Server]:
    with running(v2_server(tmp_path)) as started:
        yield started


Load = Callable[..., Teacher]


@pytest.fixture
def load(server: V2Server, tmp_path: Path) -> Load:
    def loaded(access: ServerAccess = _NOBODY, **changes: Any) -> Teacher:
        return load_teacher(_config(server, **changes), tmp_path, access)

    return loaded


def _config(server: V2Server, **changes: Any) -> TeacherConfig:
    told = {"url": server.url, "model": "sister", **changes}
    return TeacherConfig.model_validate({"version": "t1", "tasks": TASKS, "inputs": {}, "server": told})


def test_rows_go_in_requests_of_the_declared_size_and_no_more_at_a_time(server: V2Server, load: Load) -> None:
    teacher = load(batch_rows=10)
    server.gate = threading.Event()
    rows = {"user": np.arange(95) % 5, "item": np.arange(95) % 6}
    found: list[Any] = []
    asked = threading.Thread(target=lambda: found.append(teacher.score(rows)))
    asked.start()
    while server.under_way < 4:
        time.sleep(0.001)  # the server's threads take the requests
    server.gate.set()
    asked.join()
    assert sorted(rows for _, rows in server.seen) == [5, *[10] * 9]
    assert server.most == 4
    assert found[0][:, 0].tolist() == LIKE_UI[rows["user"], rows["item"]].tolist()


def test_tensors_are_binary_where_the_server_offers_it(server: V2Server, load: Load) -> None:
    load().score(_ROWS)
    server.extensions = []
    load().score(_ROWS)
    types = [headers["Content-Type"] for headers, _ in server.seen]
    assert types == ["application/octet-stream", "application/json"]


def test_an_input_of_shape_1_is_one_for_all_rows_of_a_request(server: V2Server, load: Load) -> None:
    server.metadata["inputs"][0]["shape"] = [1]
    compute = server.compute
    server.compute = lambda feeds: compute({**feeds, "user": np.repeat(feeds["user"], len(feeds["item"]))})
    teacher = load(batch_rows=4)
    random = np.random.default_rng(0)
    rows = {"user": random.integers(0, 5, 40), "item": random.integers(0, 6, 40)}
    assert teacher.score(rows)[:, 0].tolist() == LIKE_UI[rows["user"], rows["item"]].tolist()
    groups = np.bincount(rows["user"])
    assert len(server.seen) == sum(-(-count // 4) for count in groups)


def test_texts_reach_the_server_in_both_forms(server: V2Server, load: Load) -> None:
    server.metadata["inputs"] = [{"name": "job", "datatype": "BYTES", "shape": [-1]}]
    server.compute = lambda feeds: {
        "like": np.array([len(one) for one in feeds["job"]]).reshape(-1, 1),
        "rating": np.array([one == "é" for one in feeds["job"]]),
    }
    jobs = np.array(["nurse", "é", "", "a\nb"], object)
    for extensions in (["binary_tensor_data"], []):
        server.extensions = extensions
        assert load().score({"job": jobs}).tolist() == [[5, 0], [1, 1], [0, 0], [3, 0]]


# What fails: nothing is lost, no row is to blame, and the next call is as the first.


def _slow(handler: BaseHTTPRequestHandler) -> None:
    """Half of an answer, byte by byte, for as long as somebody listens."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.01)  # below each time-out of a single read


def _endless_without_length(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.01)


def _endless_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"y")
        handler.wfile.flush()
        time.sleep(0.01)


def _silent(handler: BaseHTTPRequestHandler) -> None:
    handler.rfile.read(1)  # until the client hangs up


def _dropped(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def _half(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"{}")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def _huge(handler: BaseHTTPRequestHandler) -> None:
    """A gigabyte: it is not read, nor is it said beforehand."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    for _ in range(1024):
        handler.wfile.write(b" " * (1 << 20))


def _told_huge(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 30))
    handler.end_headers()


def _status(status: int, body: bytes = b'{"error": "busy"}', **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: send(handler, status, body, named)


_FAULTS = {
    "drips": (_slow, "was not answered within 0.5 s"),
    "drips without a length": (_endless_without_length, "was not answered within 0.5 s"),
    "drips headers": (_endless_headers, "was not answered within 0.5 s"),
    "silent": (_silent, "was not answered within 0.5 s"),
    "dropped": (_dropped, "does not answer"),
    "half": (_half, "does not answer"),
    "huge": (_huge, "has more than"),
    "huge as told": (_told_huge, "has more than"),
    "503": (_status(503), "has answered 503: busy"),
    "429": (_status(429), "has answered 429: busy"),
    "502 of a proxy": (_status(502, b"<html>\r\nBad gateway"), "has answered 502: <html> Bad gateway"),
    "401": (_status(401), "has answered 401: busy; give a token"),
    "404": (_status(404), "has answered 404: busy; name a model"),
    "413": (_status(413), "has answered 413: busy; make teacher.server.batch_rows smaller"),
    "redirect": (_status(307, Location="http://example.org/"), "redirects are not followed"),
    "no JSON": (_status(200, b"<html>"), "a reply that is not used: it is not JSON"),
    "no outputs": (_status(200, b"{}"), "a reply that is not used: outputs: Field required"),
    "no HTTP": (lambda handler: handler.wfile.write(b"\x15\x03\x01\x00\x02\x02\x16\n"), "does not answer"),
}


@pytest.mark.parametrize("name", _FAULTS)
def test_a_call_that_fails_for_the_server_is_told_and_the_next_one_is_sound(
    server: V2Server, load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, told = _FAULTS[name]
    monkeypatch.setattr(model_server, "_TIMEOUT_SECONDS", 0.5)
    teacher = load()
    for _ in range(2):
        server.faults += [fault] * (2 if name == "dropped" else 1)  # a kept connection that is closed is no fault yet
        started = time.monotonic()
        with pytest.raises(TeacherUnavailableError, match=told):
            teacher.score(_ROWS)
        assert time.monotonic() - started < 3
        assert not server.faults
        assert teacher.score(_ROWS)[:, 0].tolist() == _LIKES


def test_one_failing_request_of_many_fails_the_call(server: V2Server, load: Load) -> None:
    teacher = load(batch_rows=1)
    server.faults += [_status(503, Retry_After="7")]
    with pytest.raises(TeacherUnavailableError, match="503") as error:
        teacher.score(_ROWS)
    assert error.value.retry_after_seconds == 7
    assert teacher.score(_ROWS)[:, 0].tolist() == _LIKES


def test_whoever_waits_for_the_teacher_waits_as_long_as_the_server_asks(server: V2Server, load: Load) -> None:
    teacher = load()
    server.faults += [_status(503, Retry_After="1"), _status(503, Retry_After="no number")]
    outage, started = Outage("teacher", "waiting for it"), time.monotonic()
    assert wait_for(lambda: teacher.score(_ROWS), outage, StopSignal())[:, 0].tolist() == _LIKES
    assert 1 <= time.monotonic() - started < 5
    assert outage.failed(TeacherUnavailableError("x", 10**9)) < 62


_REPLIES = {
    "a row less": (lambda reply: reply["outputs"][0].update(shape=[2, 1]), r"is FP32 of shape \[2, 1\]"),
    "another type": (lambda reply: reply["outputs"][0].update(datatype="INT64"), "is INT64 of shape"),
    "no such output": (lambda reply: reply["outputs"].pop(), "it has no output 'rating'|its tensors have"),
    "fewer bytes": (lambda reply: reply["outputs"][0].update(parameters={"binary_data_size": 8}), "bytes"),
    "another version": (lambda reply: reply.update(model_version="8"), "answered with version '8', asked was '7'"),
}


@pytest.mark.parametrize("name", _REPLIES)
@pytest.mark.parametrize("extensions", [["binary_tensor_data"], []])
def test_a_reply_that_does_not_fit_is_not_used(server: V2Server, load: Load, name: str, extensions: list[str]) -> None:
    change, told = _REPLIES[name]
    server.extensions = extensions
    teacher = load()
    server.replied = change
    with pytest.raises(TeacherUnavailableError, match=told):
        teacher.score(_ROWS)
    server.replied = lambda _reply: None
    assert teacher.score(_ROWS)[:, 0].tolist() == _LIKES


def test_a_server_error_that_follows_a_row_blames_that_row_alone(server: V2Server, load: Load) -> None:
    teacher, compute = load(), server.compute

    def fails(feeds: Any) -> Any:
        if 3 in feeds["user"]:
            raise RefusalError(500, "index out of range")
        return compute(feeds)

    server.compute = fails
    with pytest.raises(TeacherOutputError, match=r"row 2 \(1 of 3 rows\): .*500: index out of range") as error:
        teacher.score(_ROWS)
    assert error.value.rows == (2,)


@pytest.mark.parametrize("has_computed", [True, False])
def test_a_server_that_fails_with_every_row_blames_none_and_is_not_asked_for_each(
    server: V2Server, load: Load, *, has_computed: bool
) -> None:
    teacher = load(batch_rows=1024)
    if has_computed:
        teacher.score(_ROWS)

    def fails(feeds: Any) -> Any:
        raise RefusalError(500, "no such kernel image")

    server.compute = fails
    asked = len(server.seen)
    with pytest.raises(TeacherUnavailableError, match="no such kernel image"):
        teacher.score({"user": np.zeros(1000, np.int64), "item": np.zeros(1000, np.int64)})
    assert len(server.seen) - asked <= 10


def test_a_lack_of_memory_there_blames_no_row(server: V2Server, load: Load) -> None:
    teacher = load()
    teacher.score(_ROWS)
    server.faults += [_status(500, b'{"error": "CUDA out of memory"}')]
    with pytest.raises(TeacherUnavailableError, match="out of memory"):
        teacher.score(_ROWS)


# At the start.


def test_a_server_that_is_away_is_told_at_once_and_found_later(tmp_path: Path) -> None:
    server = v2_server(tmp_path)
    server.port = free_port()
    with pytest.raises(TeacherUnavailableError, match=f"http://127.0.0.1:{server.port} does not answer .*refused"):
        load_teacher(_config(server), tmp_path)
    with running(server):
        load_teacher(_config(server), tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "brother"}, "has answered 404: no such model /v2/models/brother; name a model and a version"),
        ({"model": "../../admin"}, "no such model /v2/models/..%2F..%2Fadmin"),
        ({"model_version": "8"}, "has answered 404: no such model"),
        ({"url": "ftp://x"}, "teacher.server.url: must be http:// or https://, a host, .*, got 'ftp://x'"),
        ({"url": "http://127.0.0.1:99999"}, "teacher.server.url: must be"),
        ({"url": "http://127.0.0.1:1/?a=b"}, "teacher.server.url: must be"),
    ],
)
def test_a_model_that_is_not_there_and_a_bad_url_are_faults(load: Load, change: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load(**change)


def test_a_password_in_the_url_is_refused_and_not_shown(load: Load) -> None:
    with pytest.raises(ConfigurationError, match=r"no user name, .* whose value is not shown") as error:
        load(url="http://me:hunter2@127.0.0.1:1")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"name": "x"}', b'{"name":"x","inputs":[{"name":"a"}],"outputs":[]}']
)
def test_what_is_no_metadata_of_a_model_is_a_fault(server: V2Server, load: Load, body: bytes) -> None:
    server.answer = lambda _path, _headers, _body: (200, body, {})  # type: ignore[method-assign]
    with pytest.raises(ConfigurationError, match=r"teacher\.server\.url: .* is no metadata of a model"):
        load()


def test_one_of_several_versions_must_be_named(server: V2Server, load: Load) -> None:
    server.metadata["versions"] = ["6", "7"]
    with pytest.raises(ConfigurationError, match=r"model_version: the server has several versions, 6, 7; name one"):
        load()
    assert load(model_version="7").score(_ROWS)[:, 0].tolist() == _LIKES


def test_signatures_that_have_no_rows_are_told_with_those_of_the_tasks(server: V2Server, load: Load) -> None:
    server.metadata["inputs"][0]["shape"] = [8]
    server.metadata["inputs"][1]["datatype"] = "BOOL"
    server.metadata["outputs"][0]["shape"] = [-1, 5]
    with pytest.raises(ConfigurationError) as error:
        load()
    assert [fault.partition(", allowed")[0] for fault in error.value.faults] == [
        "graft.toml: teacher.server.model: input user has shape [8]",
        "graft.toml: teacher.server.model: input item has type BOOL",
        "graft.toml: teacher.tasks.0.output: 'like' has shape ['B', 5]",
    ]


# Secrets and TLS.


def test_the_token_is_sent_and_read_anew_and_nowhere_told(
    server: V2Server, load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "token"
    file.write_text("first-secret\n")
    server.token = "first-secret"
    access = ServerAccess(token_file=file)
    teacher = load(access)
    assert teacher.score(_ROWS)[:, 0].tolist() == _LIKES
    server.token = "second-secret"
    with pytest.raises(TeacherUnavailableError, match="401: who are you") as error:
        teacher.score(_ROWS)
    file.write_text("second-secret\n")
    assert teacher.score(_ROWS)[:, 0].tolist() == _LIKES
    file.unlink()
    with pytest.raises(TeacherUnavailableError, match="must be a file with one bearer token") as gone:
        teacher.score(_ROWS)
    told = [str(error.value), str(gone.value), caplog.text]
    for content in (b"", b"two words", b"new\nline", b"\xff\xfe", b"a\r\nX-Evil: 1"):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"GRAFT_TEACHER_TOKEN_FILE: .*must be a file with one") as bad:
            load(access)
        told.append(str(bad.value))
    assert not any(secret in text for text in told for secret in ("-secret", "two words", "Evil"))


def test_without_a_token_the_server_lets_nobody_in(server: V2Server, load: Load) -> None:
    server.token = "secret"
    with pytest.raises(ConfigurationError, match=r"has answered 401: who are you.; give a token"):
        load()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key, made by openssl."""
    folder = tmp_path_factory.mktemp("tls")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=here"
    try:
        subprocess.run(
            [*words.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("needs openssl")
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder / "both.pem"


def test_tls_takes_the_certificates_that_are_named_and_no_others(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(v2_server(tmp_path), certificate) as server:
        url = server.url.replace("http:", "https:")
        trusted = ServerAccess(ca_file=certificate.with_name("cert.pem"))
        teacher = load_teacher(_config(server, url=url), tmp_path, trusted)
        for _ in range(2):
            assert teacher.score(_ROWS)[:, 0].tolist() == _LIKES
        server.faults += [_slow]
        monkeypatch.setattr(model_server, "_TIMEOUT_SECONDS", 0.5)
        quick = load_teacher(_config(server, url=url), tmp_path, trusted)
        with pytest.raises(TeacherUnavailableError, match=r"within 0\.5 s"):
            quick.score(_ROWS)
        with pytest.raises(TeacherUnavailableError, match=r"is not trusted .* GRAFT_TEACHER_CA_FILE"):
            load_teacher(_config(server, url=url), tmp_path)
        with pytest.raises(TeacherUnavailableError, match="does not answer"):
            load_teacher(_config(server), tmp_path)
        for file in (tmp_path / "nowhere.pem", Path(__file__)):
            with pytest.raises(ConfigurationError, match=r"GRAFT_TEACHER_CA_FILE: .* must be a file with certificates"):
                load_teacher(_config(server, url=url), tmp_path, ServerAccess(ca_file=file))


def test_a_handshake_that_never_ends_ends_with_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "_TIMEOUT_SECONDS", 0.5)
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server = v2_server(tmp_path)
        server.port = listening.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(TeacherUnavailableError, match=r"within 0\.5 s"):
            load_teacher(_config(server, url=server.url.replace("http:", "https:")), tmp_path)
        assert time.monotonic() - started < 3


# The generation.


def test_the_generation_is_of_the_model_its_version_and_its_metadata(server: V2Server, tmp_path: Path) -> None:
    def made(**changes: Any) -> Any:
        return generation_of("p", _config(server, **changes), tmp_path, spec_of())

    first = made()
    assert made(batch_rows=7, model_version="7").digest == first.digest
    server.metadata["versions"] = ["7", "8"]
    assert made(model_version="7").digest == first.digest  # a new version beside it
    server.metadata["versions"] = ["7"]
    with running(v2_server(tmp_path)) as elsewhere:
        assert made(url=elsewhere.url).digest == first.digest
    server.metadata["outputs"][2]["shape"] = [-1, 4]
    (told,) = differences(first, made())
    assert told == 'server.outputs.item_vector: was "FP32 [-1, 3]", is "FP32 [-1, 4]"'


@given(
    body=st.binary(max_size=200)
    | st.sampled_from([b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[1,[2]]}]}', b"[" * 50_000]),
    header=st.none() | st.text(max_size=5) | st.integers(-1, 300).map(str),
)
def test_odd_replies_are_refused_or_read(body: bytes, header: str | None) -> None:
    try:
        _version, (found,) = read_reply(body, header, {"y": ("FP32", [2])})
    except TensorError:
        return
    assert found.shape == (2,)


def test_a_server_and_a_dump_import_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys, teacher_cache.kinds.load, teacher_cache.cache.generation, teacher_cache.kinds.served_teacher, "
        "teacher_cache.kinds.dumped_teacher; print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
