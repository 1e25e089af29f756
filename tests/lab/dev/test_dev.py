"""`graft dev` itself: a project that `graft init` wrote is learnt and served; what it refuses; how it ends."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from graft.cli import cli
from graft.project import load_project
from lab.dev.command import dev
from lab.dev.run import NAME, Home, sent_before
from lab.embedded import EmbeddedKafka, free_port
from lab.embedded.services import Services
from runtime.errors import ConfigurationError, GraftError
from runtime.folder import claim_folder
from stream.config import Topics
from stream.kafka import connection
from stream.kafka.topics import ensure_topics
from stream.log.examples import ExampleReader
from stream.replay.replay import ReplayPosition
from student.versions.registry import Registry
from tests.graft.fit.conftest import SECOND, write_domain
from tests.lab.dev.conftest import RATINGS

_PROGRAM = """
from graft.lazy_group import LazyGroup
from lab.commands import DEV
LazyGroup(lazy_commands={"dev": DEV}, nouns={}, elsewhere={})(prog_name="graft")
"""
_SECONDS = 240


class Running:
    """A `graft dev` in a process of its own, and what it says."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.said = folder.parent / f"said-{self.port}"
        self.folder = folder
        argv = [sys.executable, "-c", _PROGRAM, "dev", str(folder), "--port", str(self.port), *options]
        with self.said.open("wb") as file:
            self.process = subprocess.Popen(argv, stdout=file, stderr=file, start_new_session=True)

    def wait_for(self, condition: Callable[[], Any], seconds: float = _SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self) -> int:
        return self.process.wait(_SECONDS)

    @property
    def text(self) -> str:
        return self.said.read_text("utf-8")

    @property
    def curl(self) -> list[str]:
        """The arguments of the curl line; empty before it is printed."""
        found = re.search(r"^curl .*$", self.text, re.MULTILINE)
        return shlex.split(found[0]) if found else []

    def learnt(self, kind: str = "run") -> int:
        registry = Registry(self.folder / NAME / kind / "versions")
        return registry.load_manifest(version).examples if (version := registry.latest()) else -1


@contextmanager
def running(folder: Path, *options: str) -> Iterator[Running]:
    """Ended with all its children, whatever happens."""
    found = Running(folder, *options)
    children: list[psutil.Process] = []
    try:
        yield found
        children = found.children() if found.process.poll() is None else []
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.wait()
        psutil.wait_procs(children, 30)


def _dev(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(dev, list(map(str, arguments)))
    if isinstance(done.exception, GraftError):
        return done.exception.exit_code, str(done.exception)
    return done.exit_code, done.output


def _scores(line: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run(line, capture_output=True, check=True, timeout=30)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_folder_that_is_no_project_and_one_without_events_are_named(tmp_path: Path, shop: Path) -> None:
    code, said = _dev(tmp_path / "nothing")
    assert code == 2
    assert "nothing: is no project, it has no graft.toml; 'graft init" in said
    (shop / "events.parquet").rename(tmp_path / "elsewhere.parquet")
    assert "has no events.parquet or events.jsonl; put one there" in _dev(shop)[1]
    for name in ("events.parquet", "events.jsonl"):
        (shop / name).touch()
    assert "has both events.parquet and events.jsonl; keep one" in _dev(shop)[1]


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "inf", "nan"])
def test_a_speed_is_max_or_a_number_above_0(tmp_path: Path, speed: str) -> None:
    code, said = _dev(tmp_path, "--speed", speed)
    assert code == 2
    assert "must be max or a number above 0" in said


def test_events_of_the_future_a_csv_and_a_port_in_use_are_refused_before_anything_starts(
    tmp_path: Path, shop: Path, log: Path
) -> None:
    (tmp_path / "odd.jsonl").write_text('{"type": "impression", "event_time_ms": 9000000000000}\n' * 9)
    assert "shift the file's times, such as to end now" in _dev(shop, "--events", tmp_path / "odd.jsonl")[1]
    assert "is no event" in _dev(shop, "--events", log / "ratings.csv")[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = _dev(shop, "--port", str(port))
    assert (code, said) == (2, f"port {port}: is in use by another process; name another one with --port")
    assert not (shop / NAME).exists()


def test_a_second_one_on_the_same_folder_is_refused(shop: Path) -> None:
    with claim_folder(shop / NAME, ""):
        code, said = _dev(shop)
    assert code == 1
    assert said == f"{shop / NAME}: another 'graft dev' works in it; end that one first, or copy the project's folder"


def test_servers_that_do_not_answer_are_named(shop: Path) -> None:
    code, said = _dev(shop, "--redis-url", f"redis://127.0.0.1:{free_port()}/0")
    assert code == 1
    assert "Redis at redis://127.0.0.1" in said


def test_what_is_kept_is_not_taken_up_on_other_servers_nor_what_others_have_sent(tmp_path: Path, shop: Path) -> None:
    loaded = load_project(shop)
    embedded, own = Services("127.0.0.1:1", "", True, True), Services("broker:9092", "", False, True)
    home = Home(tmp_path, keeps=True)
    with pytest.raises(ConfigurationError, match=r"has records in shop-impressions that 'graft dev' did not send"):
        home.take_up(own, ["shop-impressions"], loaded)
    home.take_up(embedded, [], loaded)
    home.take_up(embedded._replace(kafka="127.0.0.1:2"), ["shop-impressions"], loaded)
    with pytest.raises(ConfigurationError, match=r"was begun with Kafka embedded .* now it is Kafka broker:9092"):
        home.take_up(own, [], loaded)
    (tmp_path / "begun.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"cannot be read; remove"):
        home.take_up(embedded, [], loaded)


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
        with pytest.raises(ConfigurationError, match=r"kept is of other events, remove it to begin anew"):
            sent_before(home, services, project, events)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_init_and_dev_lead_from_a_csv_to_scores_and_ctrl_c_leaves_nothing(project, log: Path, teacher: Path) -> None:
    tables = ["--users", log / "users.csv", "--items", log / "movies.csv"]
    folder = project("--events", log / "ratings.csv", *tables, "--teacher", teacher)
    with running(folder) as shop:
        shop.wait_for(lambda: "events are read" in shop.text)
        assert f"{RATINGS} examples learnt" in shop.text
        reply = _scores(shop.curl)
        assert not reply["degraded"]
        assert set(reply["scores"]) == {"liked", "rating"}
        assert int(reply["model_version"].removeprefix("v")) > 1
        children = shop.children()
        assert len(children) == 6  # Kafka, Redis, stream, teacher, learner, scorer
        second = _dev(folder)
        assert second[0] == 1
        assert "another 'graft dev' works in it" in second[1]
        shop.process.send_signal(signal.SIGINT)
        assert shop.wait() == 0
    assert shop.text.endswith("stopped\n")
    assert psutil.wait_procs(children, 10)[1] == []
    assert "the student begins untrained" in shop.text  # nothing can be learnt of this teacher
    assert shop.learnt() == RATINGS


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_init_with_the_sisters_log_and_dev_lead_to_scores_in_two_commands(tmp_path: Path) -> None:
    parts = {"source": (6_000, 120, SECOND - 600_000, 2), "target": (300, 25, SECOND, 3)}
    source, target = (
        write_domain(tmp_path / name, rows=rows, users=users, start=start, seed=seed)
        for name, (rows, users, start, seed) in parts.items()
    )
    done = CliRunner().invoke(
        cli, ["init", str(tmp_path / "shop"), *target.options(), *source.options("--source-"), "--yes"]
    )
    assert done.exit_code == 0, done.output
    with running(tmp_path / "shop") as shop:
        shop.wait_for(lambda: "events are read" in shop.text)
        assert "300 examples learnt" in shop.text
        assert "the student begins untrained" not in shop.text
        *line, body = shop.curl
        reply = _scores([*line, json.dumps({**json.loads(body), "explain": True})])
        assert set(reply["scores"]) == {"liked", "rating"}
        told = reply["explanation"]["request"] + reply["explanation"]["items"][0]["features"]
        names = ("user_teacher:liked", "user_teacher:rating")
        names += ("item_teacher:liked", "item_teacher:rating", "item_teacher:item_vector")
        origins = {one["feature"]: one["origin"] for one in told if "_teacher:" in one["feature"]}
        assert origins == dict.fromkeys(names, "stored")
        shop.process.send_signal(signal.SIGINT)
        assert shop.wait() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tables", [(), ("users",), ("movies",)], ids=["no-table", "users", "items"])
def test_without_a_teacher_and_without_tables_the_labels_are_learnt(project, log: Path, tables) -> None:
    option = {"users": "--users", "movies": "--items"}
    given = [argument for name in tables for argument in (option[name], log / f"{name}.csv")]
    folder = project("--events", log / "ratings.csv", *given, "--label", "bought = 1")  # positives only
    with running(folder, "--exit") as shop:
        shop.wait_for(lambda: shop.curl)
        assert shop.wait() == 0
    known, examples = set[str](), 0
    for row in (log / "ratings.csv").read_text().splitlines()[1:]:
        movie = row.split(",")[1]
        if movie in known and len(known) > 1:  # no drawn row could have had a new item
            examples += 1 + min(4, len(known) - 1)
        known.add(movie)
    assert f"{examples:,} examples learnt" in shop.text
    assert "no teacher: the student learns from its labels alone" in shop.text


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_after_kill_9_the_next_one_goes_on_with_nothing_twice_and_nothing_lost(shop: Path) -> None:
    folder = shop
    speed = ["--keep", "--speed", "600"]  # 300 minutes in 30 s
    with running(folder, *speed) as first:
        first.wait_for(lambda: first.learnt("kept") >= RATINGS // 4)
        children = first.children()
        first.process.kill()
        first.process.wait()
        half = first.learnt("kept")
    assert half < RATINGS
    assert psutil.wait_procs(children, 20)[1] == []
    with running(folder, *speed, "--exit") as second:
        assert second.wait() == 0, second.text
    assert second.learnt("kept") == RATINGS
    assert "dead letters" not in second.text
    shown = _examples(folder)
    assert len(shown) == len(set(shown)) == RATINGS
    with running(folder, *speed, "--exit") as third:  # there is nothing left to send
        assert third.wait() == 0, third.text
    assert third.learnt("kept") == RATINGS


def _examples(folder: Path) -> list[str]:
    """The impression ids on the kept topic of examples."""
    with EmbeddedKafka(folder / NAME / "kept" / "kafka", keeps=True) as kafka:
        reader = ExampleReader(kafka.servers, Topics(prefix="shop-"), {})
        found: list[str] = []
        while records := reader.poll(2.0):
            found += [record.example.impression_id for record in records]
        reader.close()
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_process_that_dies_again_and_again_ends_it_with_its_last_line_and_advice(shop: Path) -> None:
    with running(shop, "--keep") as found:
        found.wait_for(lambda: found.curl)
        spec = shop / "feature_repo" / "data" / "feature_spec.json"
        spec.write_text("{}")
        learner = next(child for child in found.children() if "train" in child.cmdline())
        learner.kill()
        assert found.wait() == 1
    assert "graft student train ended 5 times within 5 minutes" in found.text
    assert "not a feature spec of this version" in found.text
    advice = f"mend what it says, then start it again; or remove {shop / NAME / 'kept'} to begin anew"
    assert advice in found.text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_sigterm_before_all_is_learnt_says_so_by_its_exit_code(shop: Path) -> None:
    with running(shop, "--exit", "--speed", "1") as found:
        found.wait_for(lambda: found.curl)
        children = found.children()
        found.process.send_signal(signal.SIGTERM)
        assert found.wait() == 143
    assert psutil.wait_procs(children, 10)[1] == []
