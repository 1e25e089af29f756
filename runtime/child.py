"""Child processes that do not outlive this one, not even when it is killed with -9."""

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_WRAPPER = str(Path(__file__).with_name("_die_with_parent.py"))
_KERNEL_KILLS = sys.platform == "linux"
"""Elsewhere (macOS) a watcher beside the child reads a pipe of ours."""


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
        [sys.executable, "-I", "-S", _WRAPPER, *how, "--", *argv],
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
