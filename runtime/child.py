"""Child processes that do not outlive this one, not even when it is killed with -9.

A child starts as this file: ``child.py kernel PARENT_PID SIGNAL -- ARGV`` lets the kernel send it SIGNAL when its
parent ends, and ``child.py watch PIPE SIGNAL -- ARGV`` forks a watcher that does when the pipe closes (only the parent
writes). Either way it becomes ARGV, so the pid that the parent knows is the program's own.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_KERNEL_KILLS = sys.platform == "linux"
"""Elsewhere (macOS) a watcher beside the child reads a pipe of ours."""
_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.5  # how long the watcher outlives its program


def start_child(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    cwd: Path | None = None,
    files: Sequence[int] = (),
    last_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a program that gets `last_signal` as soon as this process ends in any way; `.pid` is the program's own.

    Call it from the main thread, or from one that lives as long as the child should: on Linux the kernel ends the
    child when the *thread* that started it ends. Keep the result: where there is a watcher, the child ends with it.
    The child has a process group of its own, so a Ctrl-C in the terminal reaches only this process, which then stops
    its children in its own order. It inherits the open `files`. An argv[0] that cannot be executed exits with 127.
    """
    pipe = () if _KERNEL_KILLS else os.pipe()
    how = ["watch", str(pipe[0])] if pipe else ["kernel", str(os.getpid())]
    how.append(str(int(last_signal)))
    process = subprocess.Popen(  # noqa: S603 - the argv is the caller's, no shell reads it
        [sys.executable, "-I", "-S", str(Path(__file__)), *how, "--", *argv],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        process_group=0,
        pass_fds=(*pipe[:1], *files),
    )
    if pipe:
        os.close(pipe[0])
        weakref.finalize(process, os.close, pipe[1])
    return process


def stop_child(process: subprocess.Popen[bytes], seconds: float = 10.0) -> int:
    """End a child by SIGTERM, by SIGKILL when that took over `seconds`; its exit code (negative: the signal)."""
    process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _ask_kernel(parent_pid: int, number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, number) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent_pid:  # it ended before we asked
        sys.exit(1)


def _fork_watcher(pipe: int, number: int) -> None:
    program = os.getpid()
    if os.fork() == 0:
        _watch(program, pipe, number)
        os._exit(0)
    os.close(pipe)


def _watch(program: int, pipe: int, number: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    while os.getppid() == program:
        if select.select([pipe], [], [], _WATCH_SECONDS)[0]:
            if os.getppid() == program:
                os.kill(program, number)
            return


def _become_program(arguments: list[str]) -> None:
    """Arrange the end, then become the program; exit code 127 when it cannot be executed."""
    way, value, number, _, *argv = arguments
    if way == "kernel":
        _ask_kernel(int(value), int(number))
    else:
        _fork_watcher(int(value), int(number))
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - becoming the program without a shell is the purpose
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - the child's standard error is its log
        os._exit(127)


if __name__ == "__main__":
    _become_program(sys.argv[1:])
