"""A real Apache Kafka as an embedded server, for the tests that need a true broker."""

from collections.abc import Sequence
from pathlib import Path

from lab.embedded import EmbeddedKafka


class ApacheKafka(EmbeddedKafka):
    """A real Apache Kafka whose folder `home` (KAFKA_HOME) has the program ``bin/kafka start DIR PORT``; needs Java."""

    name = "Apache-Kafka"
    start_seconds = 60.0
    ports_needed = 2  # the broker's, and the controller's one above

    def __init__(self, home: Path, folder: Path | None = None, port: int | None = None) -> None:
        super().__init__(folder, port)
        self._home = home

    def _argv(self) -> Sequence[str]:
        return [str(self._home / "bin" / "kafka"), "start", str(self.folder / "data"), str(self.port)]
