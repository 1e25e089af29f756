"""``graft teacher backfill --engine ray``: what it shares out, and a cluster of two nodes of which one is killed."""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from features.spec import load_spec
from graft.cli import cli
from graft.commands.teacher.backfill_on_ray import Errand, Filler, Source
from graft.process import Process, begin
from lab.embedded import free_port
from runtime.child import start_child
from runtime.folder import file_sha256
from runtime.redis import connect, parse_url
from stream.events import Example, TeacherRequest
from stream.log.example_columns import Wanted
from stream.log.example_file import write
from stream.log.example_log import ExampleLog
from stream.log.examples import ExampleRecord
from stream.log.request_columns import Share
from teacher_cache.backfill.backfill import Manner
from teacher_cache.backfill.backfill_report import Counts

_ROWS = 1_200
_SECRET = "not-for-ray"  # a Redis without passwords takes any of its default user
_TIMES = {"seconds": 0, "teacher_seconds": 0}
_RAY = Path(sys.executable).with_name("ray")


def _example(offset: int, chance: random.Random, spec_id: str) -> Example:
    user, item = chance.randrange(40), chance.randrange(12)
    return Example(
        impression_id=f"i{offset}-{chance.random()}",
        user_id=user if user % 2 else f"ü-{user}",
        item_id=f"a{item}",
        event_time_ms=max(0, offset * 1000 + chance.randrange(-50_000, 50_000)),
        context={},
        spec_id=spec_id if chance.random() < 0.98 else "0123456789abcdef",
        features=[chance.random() * 90, 1, f"a{item}"],
        labels={"like": 1.0},
    )


def _write_log(folder: Path, spec_id: str, rows: int = _ROWS) -> Path:
    """Two partitions of two files each; rows come again and again with other features, and event times jump about."""
    chance = random.Random(1)
    for partition in range(2):
        half = rows // 2
        records = [ExampleRecord(partition, n, _example(n, chance, spec_id)) for n in range(half)]
        for first, last in ((0, half // 2), (half // 2, half)):
            run = [r._replace(example=_on_one_day(r.example)) for r in records[first:last]]
            write(folder, first, run)
    return folder


def _on_one_day(example: Example) -> Example:
    return example.model_copy(update={"event_time_ms": min(example.event_time_ms, 86_399_999)})


def _graft(project: Path, redis_url: str, *arguments: str) -> Result:
    environment = {"GRAFT_PROJECT": str(project), "GRAFT_REDIS_URL": redis_url}
    return CliRunner().invoke(cli, [*arguments], env=environment)


def _report(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout) | _TIMES
    return found


def _logits(redis_url: str) -> dict[bytes, dict[bytes, bytes]]:
    """Every key of logits with its fields, without the time of scoring."""
    with connect(redis_url) as client:
        keys: Any = client.keys("graft:logits:*")
        return {key: {item: value[4:] for item, value in _hash(client, key).items()} for key in keys}


def _hash(client: Any, key: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = client.hgetall(key)
    return found


def _forget(redis_url: str) -> None:
    with connect(redis_url) as client:
        for pattern in ("graft:logits:*", "graft:backfills:*"):
            for key in client.keys(pattern):  # type: ignore[union-attr]
                client.delete(key)


@pytest.fixture
def log(sound_project: Path, redis_url: str, tmp_path: Path) -> Path:
    """A log of the project's spec."""
    assert _graft(sound_project, redis_url, "features", "apply").exit_code == 0
    return _write_log(tmp_path / "log", load_spec(sound_project / "feature_repo").spec_id)


@pytest.fixture
def errand_of(sound_project: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Errand]:
    """Makes errands for this project, as the command does, in an environment that is the node's."""
    monkeypatch.setenv("GRAFT_REDIS_URL", redis_url)

    def make(log: Path | None, ends: Mapping[int, int], rows: Path | None = None, **changes: Any) -> Errand:
        from graft.commands.teacher.teacher_parts import ProjectTeacher  # noqa: PLC0415 - loads Feast's spec

        process: Process = begin(sound_project)
        source = Source(log, rows, rows and file_sha256(rows), None, None)
        key = ProjectTeacher(process).generation.key
        errand = Errand(
            sound_project, str(parse_url(redis_url)), key, source, Manner(), dict(ends), shares=3, name="b-1"
        )
        return errand._replace(**changes)

    return make


def _ask(filler: Filler, share: int) -> tuple[Counts, str]:
    told = filler({"share": np.array([share])})
    return Counts(*json.loads(told["counts"][0])), str(told["fault"][0])


@pytest.mark.parametrize("of", [1, 2, 5])
def test_the_shares_of_a_log_are_the_log_each_in_its_order_wherever_they_begin(log, of):
    whole = [record for records in ExampleLog(log).read({}) for record in records]
    ends, found = ExampleLog(log).offsets_end(), []
    for number in range(of):
        share = Share(number, of)
        mine = [r for r in whole if share.has(pa.array([json.dumps(r.example.user_id)]))[0]]
        read = _requests(log, {}, Wanted(ends, share=share))
        assert read == [_as_request(record) for record in mine]
        for given in (1, len(mine) // 3, len(mine)):
            position = {r.partition: r.offset + 1 for r in mine[:given]}
            assert _requests(log, {0: 0, 1: 0} | position, Wanted(ends, share=share)) == read[given:]
        found += read
    assert len(found) == len(whole) == _ROWS


def test_what_is_wanted_of_a_log_is_that_of_all_its_rows(log):
    rows = [r for records in ExampleLog(log).read({}) for r in records]
    wanted = Wanted({0: 320, 1: 599}, 100_000, 400_000, Share(1, 2))
    mine = [
        _as_request(r)
        for r in rows
        if r.offset < wanted.ends[r.partition]
        and 100_000 <= r.example.event_time_ms < 400_000
        and Share(1, 2).has(pa.array([json.dumps(r.example.user_id)]))[0]
    ]
    assert len(mine) > 100
    assert _requests(log, {}, wanted) == mine


def _requests(log: Path, offsets: Mapping[int, int], wanted: Wanted) -> list[tuple[int, int, TeacherRequest]]:
    """What is read, each with its partition and offset."""
    return [
        placed
        for columns in ExampleLog(log).read_requests(offsets, wanted)
        for placed in zip(columns.partitions, columns.offsets, columns.requests(), strict=True)
    ]


def _as_request(record: ExampleRecord) -> tuple[int, int, TeacherRequest]:
    fields = {name: getattr(record.example, name) for name in TeacherRequest.model_fields}
    return record.partition, record.offset, TeacherRequest.of_checked(fields)


def test_an_id_is_of_one_share_whatever_its_type():
    for number in range(4):
        share = Share(number, 4)
        masks = [share.has(pa.array(ids)).tolist() for ids in ([7, 8], ["7", "8"], ['"7"', '"8"'])]
        assert masks[0] == masks[1] == masks[2]
    assert sum(Share(n, 4).has(pa.array([None, "ü"])).sum() for n in range(4)) == 2


def test_the_shares_fill_the_cache_as_the_whole_does_and_tell_the_same(sound_project, redis_url, log, errand_of):
    whole = _report(_graft(sound_project, redis_url, "teacher", "backfill", "--json", "--from", str(log)))
    wanted = _logits(redis_url)
    _forget(redis_url)
    filler, counts = Filler(errand_of(log, {0: _ROWS // 2, 1: _ROWS // 2})), Counts()
    for share in range(3):
        more, fault = _ask(filler, share)
        assert fault == ""
        counts = counts.plus(more)
    assert _logits(redis_url) == wanted
    assert counts.report(0, whole["defaulted_share"])._asdict() | _TIMES == pytest.approx(whole)


def test_a_share_that_is_given_again_goes_on_where_it_was(redis_url, log, errand_of, monkeypatch):
    errand = errand_of(log, {0: _ROWS // 2, 1: _ROWS // 2}, shares=1)
    once, _ = _ask(Filler(errand._replace(name="whole")), 0)
    wanted = _logits(redis_url)
    _forget(redis_url)

    class Killed(BaseException):
        pass

    def dies(_self: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("teacher_cache.backfill.backfill.BatchFiller.keep_pace", dies)
        with pytest.raises(Killed):
            Filler(errand)({"share": np.array([0])})
    assert 0 < sum(map(len, _logits(redis_url).values())) < sum(map(len, wanted.values())) + 1
    with connect(redis_url) as client:
        before = int(client.hget(f"graft:teachers:{errand.generation}", "put:backfill") or 0)
        again, _ = _ask(Filler(errand), 0)
        after = int(client.hget(f"graft:teachers:{errand.generation}", "put:backfill") or 0)
    assert (again.read, again.left_out, again.to_score) == (once.read, once.left_out, once.to_score)
    assert after - before < 300  # what came after the first batch of 1,024 rows
    assert _logits(redis_url) == wanted


def test_a_file_of_rows_is_shared_out_too(sound_project, redis_url, log, errand_of, tmp_path):
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"user_id": [n % 7 for n in range(50)], "item_id": [f"b{n % 9}" for n in range(50)]}), rows)
    whole = _report(_graft(sound_project, redis_url, "teacher", "backfill", "--json", "--rows", str(rows)))
    wanted = _logits(redis_url)
    _forget(redis_url)
    filler, counts = Filler(errand_of(None, {0: 50}, rows)), Counts()
    for share in range(3):
        counts = counts.plus(_ask(filler, share)[0])
    assert _logits(redis_url) == wanted
    assert counts.report(0, whole["defaulted_share"])._asdict() | _TIMES == pytest.approx(whole)
    pq.write_table(pa.table({"user_id": [1], "item_id": ["b"]}), rows)
    told = _ask(Filler(errand_of(None, {0: 50}, rows)), 0)[1]
    assert "rows.parquet does not have the offsets of partition 0 to 49" in told


def test_a_node_with_another_redis_project_or_log_puts_nothing(redis_url, log, errand_of, monkeypatch):
    errand = errand_of(log, {0: 600, 1: 600})
    assert "makes the generation" in _ask(Filler(errand._replace(generation="p:g9")), 0)[1]
    told = _ask(Filler(errand._replace(ends={0: 600, 1: 601})), 0)[1]
    assert "does not have the offsets of partition 1 to 600; copy it to each node" in told
    elsewhere = errand._replace(source=errand.source._replace(log=log / "none"))
    assert "no such folder" in _ask(Filler(elsewhere), 0)[1]
    assert _ask(Filler(errand._replace(project=log)), 0)[1].startswith("node ")
    monkeypatch.setenv("GRAFT_REDIS_URL", "redis://:secret@elsewhere:1/0")
    told = _ask(Filler(errand), 0)[1]
    assert f"GRAFT_REDIS_URL names redis://elsewhere:1/0, and that of the command {errand.redis}" in told
    assert "secret" not in told
    assert _logits(redis_url) == {}


def test_what_ray_does_not_take_is_refused(sound_project, redis_url, log):
    backfill = "teacher", "backfill", "--engine", "ray"
    for odd in (["--since", "3d"], ["--events", str(sound_project / "graft.toml")], ["--from", str(log), "--dry-run"]):
        told = _graft(sound_project, redis_url, *backfill, *odd)
        assert (told.exit_code, "--engine ray takes --from LOG or --rows FILE" in told.output) == (2, True)
    if importlib.util.find_spec("ray") is None:
        told = _graft(sound_project, redis_url, *backfill, "--from", str(log))
        assert (told.exit_code, "pip install 'graft[ray]'" in told.output) == (1, True), told.output


class _Cluster:
    """A head and a worker node on this machine, of one CPU each."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # paths of sockets must be short
        self.address = f"127.0.0.1:{free_port()}"
        self._environment = environment
        self.head = self._start("--head", "--port", self.address.split(":")[1], "--include-dashboard=false")
        self.worker = self._start("--address", self.address)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        own = "--temp-dir", str(self.folder)
        argv = [str(_RAY), "start", "--block", "--num-cpus=1", "--object-store-memory=80000000", *arguments]
        argv += own if "--head" in arguments else []
        ip = "--node-ip-address=127.0.0.1"
        name = "head" if "--head" in arguments else "worker"
        with (self.folder / f"{name}.log").open("wb") as file:
            return start_child([*argv, ip], env=self._environment, stdout=file, stderr=file)

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """SIGKILL for all processes of a node."""
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()

    def close(self) -> None:
        for node in (self.worker, self.head):
            if node.poll() is None:
                self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def cluster(redis_url: str) -> Iterator[_Cluster]:
    """Two nodes that know this Redis."""
    environment = os.environ | {
        "GRAFT_REDIS_URL": redis_url.replace("//", f"//default:{_SECRET}@"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",  # a node is given up after 2 s
        "RAY_health_check_failure_threshold": "3",
    }
    cluster = _Cluster(environment)
    yield cluster
    cluster.close()


def _until(is_so: Callable[[], bool], seconds: float, told: Callable[[], str]) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, told()
        time.sleep(0.05)


def _nodes(address: str) -> int:
    code = f"import ray; ray.init({address!r}, log_to_driver=False, logging_level=50); print(len(ray.nodes()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return int(done.stdout or 0)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs graft[ray]: pip install 'ray[data]'")
def test_a_cluster_of_which_a_node_is_killed_leaves_the_cache_of_an_undisturbed_run(
    sound_project, redis_url, log, cluster, tmp_path
):
    whole = _report(_graft(sound_project, redis_url, "teacher", "backfill", "--json", "--from", str(log)))
    wanted = _logits(redis_url)
    _forget(redis_url)
    _until(lambda: _nodes(cluster.address) == 2, 120, (cluster.folder / "head.log").read_text)

    environment = cluster._environment | {"RAY_ADDRESS": cluster.address, "GRAFT_PROJECT": str(sound_project)}
    slowly = "--max-rows-per-second", "100"  # 50 a worker: a share takes 6 s
    argv = [sys.executable, "-m", "graft", "teacher", "backfill", "--engine", "ray", "--json", "--from", str(log)]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        command = start_child([*argv, *slowly], env=environment, stdout=out, stderr=err)
    told = (tmp_path / "err").read_text

    with connect(redis_url) as client:
        begun = lambda: len(client.keys("graft:backfills:*")) >= 3  # noqa: E731 - the plan, and a share on each node
        _until(begun, 120, told)
        cluster.kill(cluster.worker)
        assert command.wait(240) == 0, told()
        assert client.keys("graft:backfills:*") == []
    assert _logits(redis_url) == wanted
    report = json.loads((tmp_path / "out").read_text())
    assert (report["read"], report["left_out"]) == (whole["read"], whole["left_out"])
    assert _SECRET not in told()
    of_ray = [path.read_bytes() for path in cluster.folder.rglob("*") if path.is_file()]
    assert of_ray
    assert not any(_SECRET.encode() in content for content in of_ray)
