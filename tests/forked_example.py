"""A program of `tests.forked` that does what its test asks: `main()` ends as argv[1] says."""

import os
import sys
import time


def main() -> None:
    print(os.getpid(), hash("a"), os.environ.get("FORKED"), sys.argv[1:], file=sys.stderr, flush=True)  # noqa: T201
    if sys.argv[1] == "wait":
        time.sleep(600)
    sys.exit(sys.argv[1] if sys.argv[1] != "0" else 0)
