"""What the learners of a study say, in one file: in a terminal each line would break the progress bar."""

import logging
from pathlib import Path

FILE = "learners.log"
"""In the folder that a study writes to; it is there once a learner has said something."""


def log_to(folder: Path, learner: str) -> None:
    """Append this process's log lines from now on to the folder's file, each with the name of the learner."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / FILE, encoding="utf-8", delay=True)
    quoted = learner.replace("%", "%%")
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {quoted}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
