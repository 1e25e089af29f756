"""The archive process of the tests: `python -m tests.stream.archive_process FOLDER KAFKA_SERVERS PREFIX`."""

import sys
from pathlib import Path

from runtime.telemetry import StopSignal, configure_logging
from stream.log.archive import run_archive
from tests.stream.pair import topics


def main() -> None:
    folder, kafka_servers, prefix = sys.argv[1:]
    configure_logging()
    stop = StopSignal().install()
    run_archive(Path(folder), kafka_servers, topics(prefix), stop, every_examples=15, every_seconds=0.01)


if __name__ == "__main__":
    main()
