"""What a logit means: every change gives another generation, nothing else does, and no generation sees another's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.spec import Feature, FeatureSpec
from lab.embedded import free_port
from runtime.errors import ConfigurationError, ServiceUnavailableError
from runtime.redis import connect
from teacher_cache.cache.cache import LogitCache
from teacher_cache.cache.generation import Generation, differences, generation_of
from teacher_cache.cache.generation_registry import GenerationRegistry, Record
from teacher_cache.config import TeacherConfig
from tests.rows import keys
from tests.specs import spec_of

_SPEC = spec_of(Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None))
_ENTRY = b"\n\x08location\x12\x0bweights.bin"
_MODEL = b"\x12\x01t\x3a\x1b\x2a\x19\x6a\x17" + _ENTRY
"""An ONNX file by hand, so that no release of onnx changes it: a producer, and one tensor with weights elsewhere."""

_TABLE = {"brazil": 1, "jap\u00f3n": 4, "\ud800": 0.1, "x": "y"}
_CONFIG: dict[str, Any] = {
    "version": "t1",
    "onnx": "teacher.onnx",
    "tasks": [
        {"name": "finish", "kind": "binary", "output": "a"},
        {"name": "rating", "kind": "regression", "output": "b"},
    ],
    "vectors": [{"name": "taste", "output": "c"}],
    "inputs": {
        "age": {"kind": "bucket", "feature": "u:age", "boundaries": [18, 1e300], "codes": [1, 2, 3], "default": 7},
        "country": {"kind": "lookup", "feature": "u:country", "file": "countries.json", "default": 0},
        "year": {"kind": "linear", "feature": "i:year", "multiply": 0.1, "default": -0.0},
        "taste": {"kind": "feature", "feature": "i:taste", "default": [0.0, 1e-320]},
        "user": {"kind": "default", "default": 2**62},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project folder with a teacher whose weights are in a file of their own, and with a table."""
    (tmp_path / "teacher.onnx").write_bytes(_MODEL)
    (tmp_path / "weights.bin").write_bytes(b"\0\0\x80\x3f")
    (tmp_path / "countries.json").write_text(json.dumps(_TABLE))
    return tmp_path


def _generation(folder: Path, project: str = "p", spec: FeatureSpec = _SPEC, **changes: Any) -> Generation:
    return generation_of(project, TeacherConfig.model_validate({**_CONFIG, **changes}), folder, spec)


def _input(name: str, **changes: Any) -> dict[str, Any]:
    return {**_CONFIG["inputs"], name: {**_CONFIG["inputs"][name], **changes}}


def test_the_digests_are_those_of_every_python_and_machine(folder: Path) -> None:
    """Another value here makes every cached logit a miss: then _FORMAT changes too, and CHANGELOG.md says so."""
    assert _generation(folder).digest == "313639cbc4f7625a"
    assert _generation(folder, project="q-2").key == "q-2:5d2fb99c6d0fe5fa"
    inline = {"tag": {"kind": "lookup", "feature": "f", "table": {"b": 1, "a": 2.5, "c": "\u00e9"}, "default": "z"}}
    assert _generation(folder, inputs=inline, vectors=[]).digest == "f7564cc74fde810d"


def test_the_context_that_the_teacher_sees_is_in_what_a_generation_is_made_of(folder: Path) -> None:
    """Under this map's former digest lie logits whose keys had no context: they are never read."""
    names = "context:hour", "context:device", "context:unseen"
    context = [Feature(name=name, source="context", role="passthrough", dtype="str", default=None) for name in names]
    spec = spec_of(*context, *_SPEC.features)
    place = {"kind": "concat", "features": ["context:hour", "u:age", "context:device"], "default": ""}
    found = _generation(folder, spec=spec, inputs={**_CONFIG["inputs"], "place": place})
    assert found.context == found.made_of["context in the key"] == ["context:device", "context:hour"]
    made_of = {key: value for key, value in found.made_of.items() if key != "context in the key"}
    former = Generation(project="p", made_of=made_of)
    assert (former.context, former.digest == found.digest) == ([], False)
    assert differences(former, found) == ['context in the key: was nothing, is ["context:device", "context:hour"]']
    assert _generation(folder, spec=spec).context == []


def test_a_name_a_path_a_time_or_an_order_changes_nothing(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    digest = _generation(folder).digest
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(folder, elsewhere)
    os.utime(elsewhere / "teacher.onnx", (1, 1))
    (elsewhere / "teacher.onnx").rename(elsewhere / "model.bin")
    (elsewhere / "countries.json").rename(elsewhere / "c.json")
    text = json.dumps(dict(reversed(_TABLE.items())), indent=3).replace("\n", "\r\n")
    (elsewhere / "c.json").write_bytes(text.encode())
    inputs = dict(reversed(_input("country", file="c.json").items()))
    same = _generation(elsewhere, version="other", onnx="model.bin", inputs=inputs, ttl_seconds=5)
    assert same.digest == digest
    inline = {**_CONFIG["inputs"]["country"], "file": None, "table": _TABLE}
    assert _generation(folder, inputs={**_CONFIG["inputs"], "country": inline}).digest == digest


def test_a_vocabulary_is_its_lines_not_its_file(folder: Path) -> None:
    def digest(text: str, name: str = "v.txt", **given: Any) -> str:
        (folder / name).write_bytes(text.encode())
        mapped = {"kind": "vocabulary", "feature": "f", "file": name, "default": 0, **given}
        return _generation(folder, inputs={"word": mapped}).digest

    assert digest("a\nb\n") == digest("a\r\nb", name="w.txt")
    assert len({digest("a\nb\n"), digest("b\na\n"), digest("a\nb\nc\n"), digest("a\nb\n", first=1)}) == 4


def test_another_process_computes_the_same_whatever_its_hash_seed(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    (folder / "spec.json").write_text(_SPEC.model_dump_json())
    code = (
        "import sys, pathlib as p; from features.spec import FeatureSpec as S; from teacher_cache.config import "
        "TeacherConfig as T; from teacher_cache.cache.generation import generation_of as g; f = p.Path(sys.argv[1]); "
        "print(g('p', T.model_validate_json((f / 'config.json').read_text()), f, "
        "S.model_validate_json((f / 'spec.json').read_text())).digest, 'onnxruntime' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, env=environment, check=True)
    assert told.stdout.decode().split() == [_generation(folder).digest, "False"]  # nor is the teacher loaded


def _spec(feast_project: str) -> FeatureSpec:
    return FeatureSpec.model_validate({**_SPEC.model_dump(), "feast_project": feast_project})


_CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "project": ({"project": "p2"}, 'project: was "p", is "p2"'),
    "feature spec": (
        {"spec": _spec("q")},
        f'feature spec: was "{_SPEC.spec_id}", is "{_spec("q").spec_id}"',
    ),
    "task order": (
        {"tasks": _CONFIG["tasks"][::-1]},
        'tasks.0.name: was "finish", is "rating"',
    ),
    "task name": ({"tasks": [{**_CONFIG["tasks"][0], "name": "Finish"}, _CONFIG["tasks"][1]]}, "tasks.0.name"),
    "task output": ({"tasks": [{**_CONFIG["tasks"][0], "output": "b"}, _CONFIG["tasks"][1]]}, "tasks.0.output"),
    "task kind": ({"tasks": [{**_CONFIG["tasks"][0], "kind": "regression"}, _CONFIG["tasks"][1]]}, "tasks.0.kind"),
    "fewer tasks": ({"tasks": _CONFIG["tasks"][:1]}, "tasks: was"),
    "vectors": ({"vectors": []}, "vectors: was"),
    "default": ({"inputs": _input("age", default=8)}, "inputs.age.default: was 7, is 8"),
    "boundary": ({"inputs": _input("age", boundaries=[18.000000000000004, 1e300])}, "inputs.age.boundaries.0"),
    "feature": ({"inputs": _input("year", feature="i:years")}, 'inputs.year.feature: was "i:year", is "i:years"'),
    "kind": (
        {"inputs": {**_CONFIG["inputs"], "year": {"kind": "default", "default": 0.0}}},
        'inputs.year.kind: was "linear", is "default"',
    ),
    "sign of zero": ({"inputs": _input("year", default=0.0)}, "inputs.year.default: was -0.0, is 0.0"),
    "one input less": ({"inputs": {k: v for k, v in _CONFIG["inputs"].items() if k != "user"}}, "inputs.user: was"),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_every_change_of_the_project_makes_another_generation_and_is_told(folder: Path, change: str) -> None:
    before, (changes, told) = _generation(folder), _CHANGES[change]
    after = _generation(folder, **changes)
    assert after.digest != before.digest
    assert any(line.startswith(told) for line in differences(before, after)), differences(before, after)
    assert differences(before, _generation(folder)) == []


@pytest.mark.parametrize("name", ["teacher.onnx", "weights.bin", "countries.json"])
def test_a_changed_file_of_the_same_size_and_time_makes_another_generation(folder: Path, name: str) -> None:
    path, before = folder / name, _generation(folder)
    was = path.stat()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1", b"2", 1) if name == "countries.json" else data.replace(b"\x80", b"\x81", 1))
    if name == "teacher.onnx":
        path.write_bytes(data.replace(b"t", b"u", 1))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    after = _generation(folder)
    assert after.digest != before.digest
    (told,) = differences(before, after)
    where = {
        "teacher.onnx": "files.onnx",
        "weights.bin": "files.weights weights.bin",
        "countries.json": "inputs.country",
    }
    assert told.startswith(where[name])


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("teacher.onnx", "teacher.onnx cannot be read: No such file"),
        ("weights.bin", "weights.bin cannot be read: No such file"),
        ("countries.json", "file 'countries.json' cannot be read"),
    ],
)
def test_what_cannot_be_digested_is_refused(folder: Path, name: str, fault: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigurationError, match=fault):
        _generation(folder)


def test_a_file_that_is_no_onnx_is_refused(folder: Path) -> None:
    (folder / "teacher.onnx").write_bytes(b"\x0f not a model")
    with pytest.raises(ConfigurationError, match=r"teacher\.onnx cannot be digested: it is no protobuf message"):
        _generation(folder)


_values = st.integers(0, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    made=st.lists(
        st.tuples(st.sampled_from(["p", "p2"]), _values, _values, _values, _values, st.booleans()),
        min_size=2,
        max_size=5,
    )
)
def test_no_generation_ever_reads_anothers_logits(folder: Path, redis_url: str, made: list[tuple[Any, ...]]) -> None:
    """Each writes the same rows under its own key; afterwards each reads what it wrote, or what equal ones wrote."""
    with connect(redis_url) as client:
        client.flushall()
    states: dict[str, tuple[Any, ...]] = {}
    caches = {}
    for state in made:
        project, file, table, default, view, is_swapped = state
        (folder / "weights.bin").write_bytes(bytes([file]) * 4)
        (folder / "countries.json").write_text(json.dumps({"brazil": table}))
        spec = _spec(f"f{view}")
        tasks = _CONFIG["tasks"][::-1] if is_swapped else _CONFIG["tasks"]
        key = _generation(folder, project, spec, tasks=tasks, inputs=_input("age", default=default)).key
        assert states.setdefault(key, state) == state  # one key, one meaning
        caches[state] = LogitCache(redis_url, key, ("a", "b"), 100)
    assert len(states) == len(set(made))
    numbers = {state: float(n) for n, state in enumerate(caches)}
    for state, logits in caches.items():
        assert np.isnan(logits.get(keys(logits, [1], [2])).logit_BT).all()
        logits.put(keys(logits, [1], [2]), np.full((1, 2), numbers[state], np.float32), 2**41)
    for state, logits in caches.items():
        assert logits.get(keys(logits, [1], [2])).logit_BT.tolist() == [[numbers[state]] * 2]
        logits.close()


@pytest.fixture
def registry(redis_url: str) -> Any:
    registry = GenerationRegistry(redis_url, "p")
    yield registry
    registry.close()


def _record(generation: Generation, name: str = "t1", begun_ms: int = 1_700_000_000_000) -> Record:
    return Record(generation=generation, name=name, begun_ms=begun_ms, begun_at="here:/p")


def test_a_name_stands_for_one_generation_and_its_reuse_says_what_changed(folder: Path, registry: Any) -> None:
    first, second = _generation(folder), _generation(folder, inputs=_input("age", default=8))
    registry.begin(_record(first))
    registry.begin(_record(first, begun_ms=1_800_000_000_000))  # a restart
    with pytest.raises(ConfigurationError) as refused:
        registry.begin(_record(second))
    assert str(refused.value) == (
        f"graft.toml: teacher.version: 't1' is the name of generation {first.digest} since 2023-11-14 22:13 UTC, and "
        f"this project now makes generation {second.digest}: inputs.age.default: was 7, is 8. Give it another "
        f"teacher.version, or free the name with 'graft reset --generation {first.digest}'"
    )
    assert list(registry.records()) == [first.digest]
    registry.begin(_record(second, "t2", 1_900_000_000_000))
    registry.begin(_record(first, "t3"))  # two names of one
    assert registry.names() == {"t1": first.digest, "t2": second.digest, "t3": first.digest}
    assert [r.begun_ms for r in registry.records().values()] == [1_700_000_000_000, 1_900_000_000_000]
    registry.forget(first.digest)
    assert (list(registry.records()), registry.names()) == ([second.digest], {"t2": second.digest})
    registry.begin(_record(_generation(folder), "t1"))


def test_two_projects_may_use_one_name(folder: Path, registry: Any, redis_url: str) -> None:
    registry.begin(_record(_generation(folder)))
    other = GenerationRegistry(redis_url, "p2")
    other.begin(_record(_generation(folder, project="p2")))
    assert len(other.records()) == len(registry.records()) == 1
    other.clear()
    assert len(registry.records()) == 1
    other.close()


def test_what_made_a_generation_comes_back_as_it_was(folder: Path, registry: Any) -> None:
    odd = _generation(folder, inputs=_input("age", boundaries=[1, float("inf")]))
    registry.begin(_record(odd))
    (record,) = registry.records().values()
    assert differences(record.generation, odd) == []
    assert record.generation.digest == odd.digest


def test_a_registry_with_odd_bytes_is_read_as_far_as_it_goes(folder: Path, registry: Any, redis_url: str) -> None:
    generation = _generation(folder)
    with connect(redis_url) as client:
        client.hset("graft:teachers:p", mapping={b"\xff": b"\xff", "generation:x": b"{", "name:t1": b"\xfe"})
    assert registry.records() == {}
    (told,) = registry.clash("t1", generation)
    assert "what it was made of is not known" in told
    registry.begin(_record(generation, "t2"))
    with connect(redis_url) as client:
        client.set("graft:teachers:q", "no hash")
    with pytest.raises(ServiceUnavailableError, match="refuses for now"):
        GenerationRegistry(redis_url, "q").begin(_record(generation))


def test_a_registry_without_redis_says_so(folder: Path) -> None:
    away = GenerationRegistry(f"redis://127.0.0.1:{free_port()}/0", "p")
    with pytest.raises(ServiceUnavailableError):
        away.begin(_record(_generation(folder)))
