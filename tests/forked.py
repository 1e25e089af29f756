"""The tests' own programs, forked from a process that has imported what they need: an import of torch takes seconds.

As a program: `python -m tests.forked SOCKET MODULE...` imports the modules, calls the `prepare()` of those that have
one, and runs `main()` of one of them in a new process for each request on the socket; it ends, and its children with
it, when the other end is closed.

Forks have the hash seed of the process that they come from. A test that must see another one after a restart starts
each in a group of its own.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from runtime.child import start_child

_ROOT = Path(__file__).parents[1]
_STREAM = ("tests.stream.process", "tests.stream.archive_process")
_LEARN = ("exchange_contract", "rank_learning", "rank_teacher", "train_process")
_PROGRAMS = (_STREAM, tuple(f"tests.student.learn.{name}" for name in _LEARN))
_START_SECONDS = 90.0  # of an import of torch on a busy machine
_PR_SET_PDEATHSIG = 1


class Forked:
    """A child as `subprocess.Popen` has it."""

    def __init__(self, server: "_Server", pid: int, stderr: IO[bytes] | None) -> None:
        self._server, self.pid, self.stderr = server, pid, stderr

    @property
    def returncode(self) -> int | None:
        return self._server.codes.get(self.pid)

    def poll(self) -> int | None:
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _wait(self, seconds: float | None) -> int | None:
        self._server.hear(lambda: self.returncode is not None, seconds)
        return self.returncode


class _Server:
    """This process's end."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.codes: dict[int, int] = {}
        self._started: list[int] = []
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            argv = [sys.executable, "-m", "tests.forked", str(other.fileno()), *modules]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # read once, by the import of torch
            self._process = start_child(argv, cwd=_ROOT, env=environment, files=[other.fileno()])

    def start(self, request: Mapping[str, Any], files: Sequence[int]) -> int:
        """The pid of a new child, whose standard output and standard error are `files`."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        assert self.hear(lambda: self._started, _START_SECONDS), "no child was started"
        return self._started.pop()

    def hear(self, enough: Any, seconds: float | None) -> bool:
        """Whether what the server says came to be enough in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not enough():
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                return False
            said = self._socket.recv(1000)
            assert said, "the process that forks has ended; its standard error says why"
            pid, code = json.loads(said)
            if code is None:
                self._started.append(pid)
            else:
                self.codes[pid] = code
        return True

    def end(self) -> None:
        self._socket.close()
        self._process.wait(20)


_servers: dict[tuple[Sequence[str], int], _Server] = {}


def end_forked() -> None:
    """No child is left, and what they needed of the processor is counted as this process's children's."""
    while _servers:
        _servers.popitem()[1].end()


def start_forked(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    group: int = 0,
) -> Any:
    """`python -m ARGV` in a process that ends with this one, as `start_child` has it; argv[0] is one of `_PROGRAMS`.

    Forks of different groups have different hash seeds.
    """
    modules = next(modules for modules in _PROGRAMS if argv[0] in modules)
    environment = dict(os.environ if env is None else env)
    if sys.platform != "linux":  # whose pidfd and whose end with the parent are used here
        return start_child([sys.executable, "-m", *argv], env=environment, stdout=stdout, stderr=stderr, cwd=_ROOT)
    ours: IO[bytes] | None = None
    given: list[int] = []
    if stderr == subprocess.PIPE:
        reading, writing = os.pipe()
        ours, given = os.fdopen(reading, "rb"), [writing]
    with Path(os.devnull).open("wb") as nowhere:
        files = [_file(stdout, 1, nowhere), given[0] if given else _file(stderr, 2, nowhere)]
        server = _servers.get((modules, group)) or _servers.setdefault((modules, group), _Server(modules))
        pid = server.start({"argv": list(argv), "env": environment}, files)
    for file in given:
        os.close(file)
    return Forked(server, pid, ours)


def _file(wanted: int | IO[bytes] | None, own: int, nowhere: IO[bytes]) -> int:
    """The descriptor that `subprocess.Popen` would give a child."""
    if wanted is None:
        return own
    if wanted == subprocess.DEVNULL:
        return nowhere.fileno()
    return wanted if isinstance(wanted, int) else wanted.fileno()


def main() -> None:
    connection, modules = socket.socket(fileno=int(sys.argv[1])), sys.argv[2:]
    programs = {module: importlib.import_module(module) for module in modules}
    for program in programs.values():
        getattr(program, "prepare", lambda: None)()
    gc.collect()
    gc.freeze()
    request = _forking(connection)
    if request is not None:
        programs[request["argv"][0]].main()


def _forking(connection: socket.socket) -> dict[str, Any] | None:
    """In each child its request; in this process None, when nobody is left to ask for one."""
    children: dict[int, int] = {}
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    while True:
        for ready, _ in waiting.poll():
            if ready in children:
                pid = children.pop(ready)
                waiting.unregister(ready)
                os.close(ready)
                _say(connection, pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                continue
            said, files, _, _ = socket.recv_fds(connection, 1_000_000, 2)
            if not said:
                return None
            parent, pid = os.getpid(), os.fork()
            if pid == 0:
                return _as_started(connection, parent, json.loads(said), files, children)
            for file in files:
                os.close(file)
            _say(connection, pid, None)
            opened = os.pidfd_open(pid)
            children[opened] = pid
            waiting.register(opened, select.POLLIN)


def _say(connection: socket.socket, pid: int, code: int | None) -> None:
    with suppress(BrokenPipeError):  # the next thing to hear is the end
        connection.send(json.dumps([pid, code]).encode())


def _as_started(
    connection: socket.socket, parent: int, request: dict[str, Any], files: Sequence[int], siblings: Mapping[int, int]
) -> dict[str, Any]:
    """Make this fork what it would be, had `start_child` started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setpgid(0, 0)
    connection.close()
    for opened in siblings:
        os.close(opened)
    for own, file in zip((1, 2), files, strict=True):
        os.dup2(file, own)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    return request


if __name__ == "__main__":
    main()
