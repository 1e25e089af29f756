"""A teacher behind a model server that speaks the Open Inference Protocol v2 over HTTP.

A call's rows go in requests of `batch_rows`, of which four are under way at a time. Whoever calls makes a
failed call again by the one policy for a service that is away (runtime/absence.py). Shapes: B rows.
"""

import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teacher_cache.config import ServerConfig, TeacherTask, TeacherVector
from teacher_cache.kinds.bisection import TeacherUnavailableError
from teacher_cache.kinds.computed_teacher import ComputedTeacher, Tensor
from teacher_cache.kinds.inference_tensors import (
    DTYPES,
    HEADER_LENGTH,
    ReplyError,
    TensorMetadata,
    most_bytes,
    read_reply,
    write_request,
)
from teacher_cache.kinds.model_server import KEY, ModelServer, RowsRefusedError, ServerFailedError
from teacher_cache.teacher import ServerAccess

_CONCURRENCY = 4  # requests under way at a time; a server that is faster with more batches rows of its own
_PROBED_ROWS = 8


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
    types: Sequence[str] = tuple(DTYPES)
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
            whole = np.empty((rows, *self._rest[name]), DTYPES[self._datatypes[name]])
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
        reply = self._server.post("infer", self._told.version, headers, body, most_bytes(wanted))
        try:
            version, found = read_reply(reply.body, reply.headers.get(HEADER_LENGTH.lower()), wanted)
        except ReplyError as error:
            raise TeacherUnavailableError(f"{self._server.name} has sent a reply that is not used: {error}") from error
        if self._told.version is not None and version not in (None, self._told.version):
            raise TeacherUnavailableError(
                f"{self._server.name} has answered with version {str(version)[:80]!r}, asked was "
                f"{self._told.version!r}; its logits are not used: name the version itself in {KEY}.model_version"
            )
        return found

    def _tensor(self, told: TensorMetadata) -> Tensor:
        dtype = DTYPES.get(told.datatype)
        if told.datatype == "FP16" and not self._told.is_binary:
            dtype = None  # JSON has no such numbers
        if dtype is not None:
            dtype = dtype.newbyteorder("=")
        is_shared = told.name in self._shared
        shape = tuple("B" if size == -1 or is_shared else size for size in told.shape)
        return Tensor(told.name, told.datatype, dtype, shape)
