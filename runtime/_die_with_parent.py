"""Become another program that ends when the process which started it ends; started by runtime/child.py, not imported.

``_die_with_parent.py kernel PARENT_PID SIGNAL -- ARGV``: the kernel sends this process SIGNAL when its parent ends.
``_die_with_parent.py watch PIPE SIGNAL -- ARGV``: a forked watcher does when the pipe closes (only the parent writes).
Either way this process becomes ARGV, so the pid that the parent knows is the program's own.
"""

import ctypes
import os
import select
import sys

_PR_SET_PDEATHSIG = 1
_WATCH_SECONDS = 0.5  # how long the watcher outlives its program


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


def main(arguments: list[str]) -> None:
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
    main(sys.argv[1:])
