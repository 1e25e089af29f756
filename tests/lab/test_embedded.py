import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lab.embedded import EmbeddedKafka, EmbeddedRedis, free_port
from lab.embedded.servers import ApacheKafka, embedded_kafka
from runtime import child
from runtime.errors import ConfigurationError, GraftError, ServiceUnavailableError
from runtime.redis import connect
from stream.config import StreamConfig, Topics
from stream.kafka import connection
from stream.kafka.connection import wait_until_ready
from stream.kafka.groups import end_offsets
from stream.kafka.topics import ensure_topics
from stream.process.state_log import packed

_HOLDER = """
import sys
from runtime import child
from lab.embedded import EmbeddedKafka, EmbeddedRedis
child._KERNEL_KILLS = sys.argv[1] == "kernel"
with EmbeddedRedis() as redis, EmbeddedKafka() as kafka:
    print(redis.process.pid, kafka.process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("way", ["kernel", "watch"])
@pytest.mark.skipif(sys.platform != "linux", reason="one of the two ways needs Linux")
def test_servers_end_when_their_parent_is_killed(way: str) -> None:
    argv = [sys.executable, "-c", _HOLDER, way]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert [server.name() for server in servers] == ["valkey-server", "noida-db"]
        parent.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(servers, timeout=5)
    assert not alive


def test_the_child_is_the_program_itself_with_its_environment_and_exit_code(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        process = child.start_child(["sh", "-c", "echo $$ $WORD; exit 7"], env={**os.environ, "WORD": "hi"}, stdout=out)
    assert process.wait(10) == 7
    assert (tmp_path / "out").read_text().split() == [str(process.pid), "hi"]


def test_a_program_that_does_not_exist_exits_with_127() -> None:
    assert child.start_child(["no-such-program"], stderr=subprocess.DEVNULL).wait(10) == 127


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    process = child.start_child(
        [
            sys.executable,
            "-c",
            "import signal; signal.signal(15, signal.SIG_IGN); print(1, flush=True); signal.pause()",
        ],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert child.stop_child(process, 0.1) == -signal.SIGKILL


def test_redis_restarts_empty_on_the_same_port() -> None:
    with EmbeddedRedis() as server:
        url = server.url
        with connect(url) as client:
            client.set("key", "value")
        server.restart()
        assert server.url == url
        with connect(url) as client:
            assert client.get("key") is None
            assert client.config_get("hash-max-listpack-value") == {"hash-max-listpack-value": "256"}
    assert not server.folder.exists()


def test_kafka_restarts_on_the_same_port_also_after_a_kill(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as broker:
        servers = broker.servers
        broker.process.kill()
        broker.process.wait()
        broker.restart()
        assert broker.servers == servers
        wait_until_ready(servers, 5)
    assert (tmp_path / "kafka.log").exists()
    with pytest.raises(ServiceUnavailableError, match="does not answer"):
        wait_until_ready(servers, 0.2)


def test_what_a_transaction_writes_is_smaller_on_the_embedded_kafka_than_its_own_bytes(tmp_path: Path) -> None:
    """Although the broker writes four characters for each byte that it holds."""
    values = list(packed((f"aggregate:user:{n}", b"[1600000000000, %d.0, 1.0]" % (n % 50)) for n in range(20_000)))
    with EmbeddedKafka(tmp_path) as broker:
        topics = Topics()
        ensure_topics(broker.servers, StreamConfig(), topics)
        producer = connection.producer(broker.servers, "writer")
        producer.init_transactions()
        producer.begin_transaction()
        for value in values:
            producer.send(topics.join_state, value)
        producer.commit_transaction()
        producer.close()
    assert 50_000 < (tmp_path / "data" / "kafka.json").stat().st_size < sum(map(len, values))


@pytest.mark.parametrize("server", [EmbeddedRedis, EmbeddedKafka])
def test_a_taken_port_is_reported_with_the_servers_own_words(
    server: type[EmbeddedRedis | EmbeddedKafka], tmp_path: Path
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with (
            pytest.raises(ServiceUnavailableError, match=r"exit code 1 while starting.*in use"),
            server(tmp_path, port),
        ):
            pass


def test_a_port_lost_to_another_process_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ports = iter([listener.getsockname()[1], free_port()])
        monkeypatch.setattr("lab.embedded.servers.free_port", lambda _: next(ports))
        with EmbeddedRedis() as server, connect(server.url) as client:
            assert client.ping()


def test_the_embedded_kafka_is_apaches_where_a_folder_of_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(embedded_kafka(tmp_path, environment={"KAFKA_HOME": "/opt/kafka"})) is EmbeddedKafka
    (tmp_path / "libs").mkdir()
    environment = {"EMBEDDED_KAFKA_HOME": str(tmp_path)}
    with pytest.raises(
        ConfigurationError, match=r"must be the folder of an unpacked Apache Kafka.*got " + str(tmp_path)
    ):
        embedded_kafka(environment=environment)
    (tmp_path / "libs/kafka-clients-4.3.1.jar").touch()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(GraftError, match=rf"needs Java 17 or newer, and there is no java in JAVA_HOME={tmp_path}"):
        embedded_kafka(environment=environment)
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho no kafka here; exit 3\n")
    java.chmod(0o755)
    chosen = embedded_kafka(environment=environment)
    assert type(chosen) is ApacheKafka
    with pytest.raises(ServiceUnavailableError, match=r"exit code 3 while starting.*no kafka here"), chosen:
        pass
    assert not chosen.folder.exists()


@pytest.mark.kafka_home
def test_a_real_kafka_keeps_what_it_has_acknowledged_in_its_folder_and_changes_nothing_in_its_home(
    kafka_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time()
    folder = tmp_path / "Kafka's, with spaces & \N{LATIN SMALL LETTER U WITH DIAERESIS}mlaut"
    monkeypatch.setenv("LC_ALL", "C")
    with ApacheKafka(kafka_home, folder) as broker:
        admin = connection.admin(broker.servers)
        admin.create_topics({"plums": {"num_partitions": 1, "replication_factor": 1}})
        producer = connection.producer(broker.servers)
        producer.send("plums", b"ripe")
        producer.flush()
        producer.close()
        admin.close()
        broker.process.kill()
        broker.process.wait()
        broker.restart()
        again = connection.admin(broker.servers)
        assert sum(end_offsets(again, ["plums"]).values()) == 1
        again.close()
    assert (folder / "data" / "meta.properties").exists()
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert [path.name for path in kafka_home.rglob("*") if path.stat().st_mtime > began] == []


_KEEPER = """
import sys
from pathlib import Path
from lab.embedded import EmbeddedKafka, EmbeddedRedis
from runtime.redis import connect
from stream.kafka import connection
folder = Path(sys.argv[1])
with EmbeddedRedis(folder / "redis", keeps=True) as redis, EmbeddedKafka(folder / "kafka", keeps=True) as kafka:
    connect(redis.url).set("key", "value")
    admin = connection.admin(kafka.servers)
    admin.create_topics({"plums": {"num_partitions": 1, "replication_factor": 1}})
    producer = connection.producer(kafka.servers)
    producer.send("plums", b"ripe")
    producer.flush()
    print(redis.process.pid, kafka.process.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel sends the signal")
def test_servers_that_keep_their_data_have_all_of_it_after_a_kill_of_their_parent(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", _KEEPER, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        servers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    # At once: the next ones wait until the first have written their data and ended.
    with EmbeddedRedis(tmp_path / "redis", keeps=True) as redis, EmbeddedKafka(tmp_path / "kafka", keeps=True) as kafka:
        assert psutil.wait_procs(servers, timeout=5)[1] == []  # ended, if not yet taken away by the system
        with connect(redis.url) as client:
            assert client.get("key") == b"value"
        admin = connection.admin(kafka.servers)
        assert sum(end_offsets(admin, ["plums"]).values()) == 1
        admin.close()


def test_a_folder_that_a_server_still_uses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.embedded.servers._CLAIM_SECONDS", 0.2)
    with (
        EmbeddedRedis(tmp_path, keeps=True),
        pytest.raises(GraftError, match=r"a Redis that was started before still uses it"),
        EmbeddedRedis(tmp_path, keeps=True),
    ):
        pass


def test_a_server_that_has_ended_by_itself_is_told_with_its_log(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as redis:
        redis.check()
        redis.process.kill()
        redis.process.wait()
        with pytest.raises(ServiceUnavailableError, match="ended with exit code -9; its last log lines"):
            redis.check()
