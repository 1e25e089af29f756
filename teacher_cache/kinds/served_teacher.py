"""A teacher behind a model server that speaks the Open Inference Protocol v2 over HTTP.

A call's rows go in requests of `batch_rows`, of which four are under way at a time. Whoever calls makes a
failed call again by the one policy for a service that is away (runtime/outage.py). Shapes: B rows.
"""

import json
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from runtime import inference_protocol as protocol
from runtime.inference_protocol import DTYPES, HEADER_LENGTH, Part, TensorError, TensorMetadata, parsed
from teacher_cache.config import ServerConfig, TeacherTask, TeacherVector
from teacher_cache.kinds.computed_teacher import ComputedTeacher, TeacherUnavailableError, Tensor
from teacher_cache.kinds.model_server import KEY, ModelServer, RowsRefusedError, ServerFailedError
from teacher_cache.teacher import ServerAccess

_CONCURRENCY = 4  # requests under way at a time; a server that is faster with more batches rows of its own
_PROBED_ROWS = 8
_DTYPES = {name: dtype for name, dtype in DTYPES.items() if not name.startswith("UINT")}
"""Those that a teacher may take."""


def open_served(
    config: ServerConfig, access: ServerAccess, tasks: Sequence[TeacherTask], vectors: Sequence[TeacherVector] = ()
) -> ComputedTeacher:
    """The teacher that the server has. ConfigurationError names all that does not fit tasks and vectors.

    TeacherUnavailableError when the server does not tell its signature now.
    """
    return ComputedTeacher(ServedModel(config, access), tasks, vectors)


class ServedModel:
    """See `computed_teacher.Model`. An input of shape [1] is one for all rows of a request: rows are sent by its value.

    So the sister's own graft scorer can be a teacher: its user_id is such an input.
    """

    key = f"{KEY}.model"
    types: Sequence[str] = tuple(_DTYPES)
    advice = "the server must tell a free number of rows, -1"

    def __init__(self, config: ServerConfig, access: ServerAccess) -> None:
        self._config = config
        self._server = ModelServer(config, access)
        weakref.finalize(self, self._server.close)
        self._told = self._server.metadata()
        inputs, outputs = self._told.model.inputs, self._told.model.outputs
        self._shared = [one.name for one in inputs if one.shape == [1]]
        self._datatypes = {one.name: one.datatype for one in [*inputs, *outputs]}
        self._rest = {one.name: one.shape[1:] for one in outputs}
        self.inputs = [self._tensor(one) for one in inputs]
        self.outputs = [self._tensor(one) for one in outputs]
        self._threads = ThreadPoolExecutor(_CONCURRENCY, "teacher-server")
        self._has_computed = False

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """See `computed_teacher.Model.run`.

        RowsRefusedError: the server refuses a request, and its rows may be the reason.
        """
        try:
            found = self._run(outputs, feeds)
        except ServerFailedError as error:
            if self._has_computed or self._computes_any(outputs, feeds):
                raise RowsRefusedError(str(error)) from error
            raise TeacherUnavailableError(str(error)) from error
        self._has_computed = True
        return found

    def _run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        rows = len(next(iter(feeds.values())))
        parts = list(self._parts(rows, feeds))
        waiting: list[Future[list[NDArray[Any]]]] = []
        if len(parts) == 1:
            return self._infer(outputs, feeds, parts[0])
        try:
            waiting = [self._threads.submit(self._infer, outputs, feeds, part) for part in parts]
            answers = [one.result() for one in waiting]
        finally:
            for one in waiting:
                one.cancel()
        found = []
        for place, name in enumerate(outputs):
            whole = np.empty((rows, *self._rest[name]), _DTYPES[self._datatypes[name]])
            for part, answer in zip(parts, answers, strict=True):
                whole[part] = answer[place]
            found.append(whole)
        return found

    def _computes_any(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> bool:
        """Whether the server computes any of some rows, asked one by one: it has computed none yet."""
        rows = len(next(iter(feeds.values())))
        for row in np.unique(np.linspace(0, rows - 1, min(rows, _PROBED_ROWS)).astype(int)):
            try:
                self._infer(outputs, feeds, np.array([row]))
            except (ServerFailedError, RowsRefusedError):
                continue
            self._has_computed = True
            return True
        return False

    def _parts(self, rows: int, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[np.intp]]:
        """The rows of each request."""
        if not self._shared:
            groups = [np.arange(rows)]
        else:
            places: dict[tuple[Any, ...], list[int]] = {}
            columns = [feeds[name].reshape(rows).tolist() for name in self._shared]
            for row, values in enumerate(zip(*columns, strict=True)):
                places.setdefault(values, []).append(row)
            groups = [np.array(one) for one in places.values()]
        size = self._config.batch_rows
        return [group[at : at + size] for group in groups for at in range(0, len(group), size)]

    def _infer(
        self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]], part: NDArray[np.intp]
    ) -> list[NDArray[Any]]:
        sent = {name: tensor[part[:1] if name in self._shared else part] for name, tensor in feeds.items()}
        body, headers = write_request(sent, self._datatypes, outputs, is_binary=self._told.is_binary)
        wanted = {name: (self._datatypes[name], [len(part), *self._rest[name]]) for name in outputs}
        reply = self._server.post("infer", self._told.version, headers, body, _most_bytes(wanted))
        try:
            version, found = read_reply(reply.body, reply.headers.get(HEADER_LENGTH.lower()), wanted)
        except TensorError as error:
            raise TeacherUnavailableError(f"{self._server.name} has sent a reply that is not used: {error}") from error
        if self._told.version is not None and version not in (None, self._told.version):
            raise TeacherUnavailableError(
                f"{self._server.name} has answered with version {str(version)[:80]!r}, asked was "
                f"{self._told.version!r}; its logits are not used: name the version itself in {KEY}.model_version"
            )
        return found

    def _tensor(self, told: TensorMetadata) -> Tensor:
        dtype = _DTYPES.get(told.datatype)
        if told.datatype == "FP16" and not self._told.is_binary:
            dtype = None  # JSON has no such numbers
        if dtype is not None:
            dtype = dtype.newbyteorder("=")
        is_shared = told.name in self._shared
        shape = tuple("B" if size == -1 or is_shared else size for size in told.shape)
        return Tensor(told.name, told.datatype, dtype, shape)


class _Reply(Part):
    model_version: str | None = None
    outputs: Annotated[list[protocol.Tensor], Field(max_length=10_000)]


def write_request(
    feeds: Mapping[str, NDArray[Any]], datatypes: Mapping[str, str], outputs: Sequence[str], *, is_binary: bool
) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of an inference request for these outputs. UnicodeEncodeError: a text is not Unicode."""
    inputs = [protocol.written(name, datatypes[name], tensor, is_binary=is_binary) for name, tensor in feeds.items()]
    parameters = {"parameters": {"binary_data": True}} if is_binary else {}
    told = {"inputs": [entry for entry, _ in inputs], "outputs": [{"name": name, **parameters} for name in outputs]}
    head = json.dumps(told, allow_nan=False, separators=(",", ":")).encode()
    if not is_binary:
        return head, {"Content-Type": "application/json"}
    body = b"".join([head, *(data for _, data in inputs)])
    return body, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def read_reply(
    body: bytes, header_length: str | None, outputs: Mapping[str, tuple[str, Sequence[int]]]
) -> tuple[str | None, list[NDArray[Any]]]:
    """The version that answered, if it says so, and these outputs; TensorError where one is not as it should be.

    `outputs`: of each its datatype and shape. `header_length` is the reply's header, where binary tensors follow.
    """
    size = protocol.json_part(body, header_length)
    reply = parsed(_Reply, body[:size])
    tensors: dict[str, NDArray[Any]] = {}
    for output, data in protocol.with_bytes(reply.outputs, body[size:]):
        if output.name in outputs:
            tensors[output.name] = _numbers(output, data, *outputs[output.name])
    if missing := [name for name in outputs if name not in tensors]:
        raise TensorError(f"it has no output {missing[0]!r}")
    return reply.model_version, [tensors[name] for name in outputs]


def _most_bytes(outputs: Mapping[str, tuple[str, Sequence[int]]]) -> int:
    """More than a reply with these outputs has, in JSON with every digit."""
    return (1 << 20) + sum(40 * int(np.prod(shape, dtype=object)) for _, shape in outputs.values())


def _numbers(output: protocol.Tensor, data: bytes | None, datatype: str, shape: Sequence[int]) -> NDArray[Any]:
    if output.datatype != datatype or output.shape != list(shape):
        raise TensorError(
            f"output {output.name} is {output.datatype} of shape {output.shape}, "
            f"it should be {datatype} of shape {list(shape)}"
        )
    values = protocol.values_of(output, data)
    if not isinstance(values, np.ndarray):
        values = np.array([_number(output.name, value) for value in values], np.float64)
    with np.errstate(over="ignore"):
        return values.astype(DTYPES[datatype], copy=False).reshape(shape)


def _number(name: str, value: Any) -> float:
    """A number of JSON; null is what a server writes that has none for NaN."""
    if value is None:
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TensorError(f"output {name} has {str(value)[:40]!r} among its numbers")
    try:
        return float(value)
    except OverflowError:
        return float("inf")
