"""What `graft dev --keep` says where what is kept is not of what it is given."""

from pathlib import Path

import pytest

from graft.project import load_project
from lab.dev.home import Home
from lab.dev.run import sent_before
from lab.embedded import EmbeddedKafka
from lab.embedded.services import Services
from runtime.errors import ConfigurationError
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from stream.replay.replay import ReplayPosition


def test_an_event_file_that_was_replaced_names_the_kept_folder_to_remove(tmp_path: Path, shop: Path) -> None:
    project, home = load_project(shop), Home(tmp_path / "kept", keeps=True)
    events = tmp_path / "events.jsonl"
    events.write_text("a\n")
    with EmbeddedKafka() as kafka:
        services = Services(kafka.servers, "", embedded_kafka=True)
        ensure_topics(kafka.servers, project.stream, project.topics)
        admin = connection.admin(kafka.servers)
        ReplayPosition(kafka.servers, admin, project.topics, events).write(1)
        admin.close()
        assert sent_before(home, services, project, events) == 1
        events.write_text("b\nc\n")
        with pytest.raises(
            ConfigurationError, match=r"kept is of other events, remove it to begin anew: .*another file"
        ):
            sent_before(home, services, project, events)
