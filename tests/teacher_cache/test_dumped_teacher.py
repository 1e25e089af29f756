"""A teacher that is a dump: late, partial, doubled, with ids of its own; what it lacks costs a signal only."""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from features.spec import Feature
from runtime.errors import ConfigurationError
from runtime.folder import file_sha256
from stream.events import TeacherRequest
from teacher_cache.cache.generation import differences, generation_of
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.dumped_teacher import Columns, DumpIndex
from teacher_cache.kinds.load import load_teacher
from teacher_cache.teacher import Teacher
from tests.specs import spec_of
from tests.teacher_cache.kinds import LIKE_UI, TASKS, save_dump

_KEYS = {"user": "int", "item": "int"}
_TABLE = {"version": "t1", "tasks": TASKS, "inputs": {}}


def _config(path: str = "logits", **changes: Any) -> TeacherConfig:
    dump = {"path": path, "model": "sister", "keys": _KEYS, **changes}
    return TeacherConfig.model_validate({**_TABLE, "dump": dump})


def _load(folder: Path, path: str = "logits", **changes: Any) -> Any:
    return load_teacher(_config(path, **changes), folder)


def _like(teacher: Teacher, user: Any, item: Any) -> Any:
    return teacher.score({"user": np.atleast_1d(user), "item": np.atleast_1d(item)})[:, 0].tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_dump(tmp_path / "logits" / "2026-11-01.parquet", range(2))
    return tmp_path


@pytest.fixture(autouse=True)
def _looks_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teacher_cache.kinds.dumped_teacher._LOOK_SECONDS", 0.0)


def test_a_folder_that_is_empty_yet_gives_nothing_until_something_is_delivered(tmp_path: Path) -> None:
    (tmp_path / "logits").mkdir()
    teacher = _load(tmp_path)
    assert np.isnan(_like(teacher, 1, 2)).all()
    save_dump(tmp_path / "logits" / "a.parquet")
    assert _like(teacher, 1, 2) == [LIKE_UI[1, 2]]


def test_a_delivery_is_taken_up_and_so_is_a_removal(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    teacher = _load(folder)
    assert np.isnan(_like(teacher, [1, 3], [2, 2])).tolist() == [False, True]
    hidden = save_dump(folder / "logits" / ".half.parquet", range(2, 4))
    save_dump(folder / "logits" / "notes.txt", range(2, 4))
    assert np.isnan(_like(teacher, 3, 2)).all()
    hidden.rename(folder / "logits" / "2026-11-02.parquet")
    assert _like(teacher, [1, 3], [2, 2]) == [LIKE_UI[1, 2], LIKE_UI[3, 2]]
    for name in ("2026-11-01.parquet", "2026-11-02.parquet"):
        assert f"{name} sha256={file_sha256(folder / 'logits' / name)[:12]}" in caplog.text
    assert REGISTRY.get_sample_value("graft_teacher_dump_rows") == 24
    (folder / "logits" / "2026-11-01.parquet").unlink()
    assert np.isnan(_like(teacher, [1, 3], [2, 2])).tolist() == [True, False]


def test_of_equal_keys_the_last_file_by_name_holds_and_in_a_file_the_last_row(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    table = {"user": [1, 1, 0], "item": [2, 2, 0], "like": [8.0, 9.0, 0.0], "rating": [1.0, 1.0, -3.0]}
    pq.write_table(pa.table(table), folder / "logits" / "2026-11-02.parquet")
    os.utime(folder / "logits" / "2026-11-02.parquet", (1, 1))  # its time says nothing
    assert _like(_load(folder), [1, 0], [2, 0]) == [9.0, 0.0]
    assert "rows=12 repeated=3 of which say something else=2 unusable=2" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PAR1 half of a file", None])
def test_a_bad_delivery_changes_nothing_and_is_told_until_it_is_mended(
    folder: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = _load(folder)
    bad = folder / "logits" / "2026-11-02.parquet"
    if content is None:
        pq.write_table(pa.table({"user": [1], "item": ["x"], "like": [0.5], "rating": [1.0]}), bad)
    else:
        bad.write_bytes(content)
    for _ in range(3):
        assert _like(teacher, 1, 2) == [LIKE_UI[1, 2]]
    told = [line for line in caplog.messages if "the dump stays as it was" in line]
    assert len(told) == 1
    assert "2026-11-02.parquet" in told[0]
    save_dump(folder / "logits" / "next.parquet", range(3, 5)).replace(bad)
    assert _like(teacher, 4, 2) == [LIKE_UI[4, 2]]


def test_a_file_that_is_written_over_while_it_is_read_is_not_used_before_it_is_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    teacher = _load(folder)
    file = save_dump(folder / "logits" / "b.parquet", range(2, 4))

    def digest_meanwhile(read: Path) -> str:
        save_dump(read, range(3, 5))
        monkeypatch.undo()
        monkeypatch.setattr("teacher_cache.kinds.dumped_teacher._LOOK_SECONDS", 0.0)
        return ""

    monkeypatch.setattr("teacher_cache.kinds.dumped_teacher.file_sha256", digest_meanwhile)
    assert np.isnan(_like(teacher, [1, 2, 4], [2, 2, 2])).tolist() == [False, True, True]
    assert "b.parquet was changed or removed while it was read" in caplog.text
    assert np.isnan(_like(teacher, [1, 2, 4], [2, 2, 2])).tolist() == [False, True, False]
    assert f"{file.name} sha256={file_sha256(file)[:12]}" in caplog.text


def test_a_file_of_the_same_size_and_time_is_taken_up(folder: Path) -> None:
    file = save_dump(folder / "logits" / "b.parquet", range(2, 3), like=np.full(7, 4.0, np.float32))
    teacher, before = _load(folder), file.stat()
    save_dump(file, range(2, 3), like=np.full(7, 5.0, np.float32))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_ino) == (before.st_size, before.st_ino)
    assert _like(teacher, 2, 2) == [5.0]


def test_a_folder_that_is_away_for_a_while_changes_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = _load(folder)
    (folder / "logits").rename(folder / "away")
    assert _like(teacher, 1, 2) == [LIKE_UI[1, 2]]
    assert "the dump stays as it was, with 12 rows: " in caplog.text
    (folder / "away").rename(folder / "logits")
    save_dump(folder / "logits" / "b.parquet", range(2, 4))
    assert _like(teacher, 3, 2) == [LIKE_UI[3, 2]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_file_with_any_bytes_changed_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    if not (tmp_path / "whole").exists():
        (tmp_path / "whole").write_bytes(save_dump(tmp_path / "logits" / "a.parquet").read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "logits" / "a.parquet").write_bytes(content)
    vectors = [{"name": "taste", "output": "item_vector"}]
    dump = {"path": "logits", "model": "m", "keys": _KEYS}
    with suppress(ConfigurationError):
        teacher = load_teacher(TeacherConfig.model_validate({**_TABLE, "vectors": vectors, "dump": dump}), tmp_path)
        assert teacher.score({"user": np.arange(5), "item": np.arange(5)}).shape == (5, 2)


def test_rows_without_a_key_or_a_usable_number_are_as_if_they_were_not_there(folder: Path) -> None:
    table = pa.table(
        {
            "user": pa.array([7, None, 7, 7, 7]),
            "item": pa.array([0, 1, 2, 3, 4]),
            "like": pa.array([0.5, 0.5, None, np.nan, 1e300]),
            "rating": pa.array([1.0] * 5),
        }
    )
    pq.write_table(table, folder / "logits" / "z.parquet")
    assert np.isnan(_like(_load(folder), [7] * 5, range(5))).tolist() == [False, True, True, True, True]


def test_faults_of_files_and_columns_come_out_at_once(folder: Path) -> None:
    pq.write_table(pa.table({"user": [1.5], "item": [1], "like": ["x"]}), folder / "logits" / "b.parquet")
    (folder / "logits" / "c.parquet").write_bytes(b"no")
    with pytest.raises(ConfigurationError) as error:
        _load(folder, max_rows=14)
    names = [fault.replace(str(folder / "logits"), "F") for fault in error.value.faults]
    assert names[:3] == [
        "graft.toml: teacher.dump.keys.user: F/b.parquet: column 'user' is of type double, must be int",
        "graft.toml: teacher.tasks.0.output: F/b.parquet: column 'like' is of type string, must be a number",
        "graft.toml: teacher.tasks.1.output: F/b.parquet has no column 'rating', it has user, item, like",
    ]
    assert names[3].startswith("graft.toml: teacher.dump.path: F/c.parquet is no Parquet file: ")
    assert names[4].startswith("graft.toml: teacher.dump.max_rows: the files have 15 rows, allowed are 14; set it to")
    assert len(names) == 5


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"teacher\.dump\.path: .*logits cannot be read: No such file"):
        _load(tmp_path)


def test_a_delivery_beyond_the_most_rows_is_not_taken_up(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = _load(folder, max_rows=20)
    save_dump(folder / "logits" / "b.parquet", range(2, 4))
    assert np.isnan(_like(teacher, [1, 3], [2, 2])).tolist() == [False, True]
    assert "the files have 28 rows, allowed are 20" in caplog.text


def test_a_key_that_is_an_output_and_vectors_without_a_width_are_told(folder: Path) -> None:
    table = {**_TABLE, "vectors": [{"name": "taste", "output": "like"}, {"name": "mood", "output": "rating"}]}
    tasks = [{"name": "a", "kind": "binary", "output": "user"}]
    dump = {"path": "logits", "model": "sister", "keys": _KEYS}
    with pytest.raises(ConfigurationError) as error:
        load_teacher(TeacherConfig.model_validate({**table, "tasks": tasks, "dump": dump}), folder)
    told = "\n".join(error.value.faults)
    assert "teacher.tasks.0.output: 'user' is a key of the dump" in told
    assert "column 'like' is of type float, must be a list of floats" in told
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(ConfigurationError, match=r"vectors\.0\.output: no row of the files has a vector 'like'"):
        load_teacher(
            TeacherConfig.model_validate(
                {**table, "vectors": table["vectors"][:1], "tasks": [], "dump": dump}
                | {
                    "tasks": [{"name": "a", "kind": "binary", "output": "rating"}],
                    "dump": {**dump, "path": "empty"},
                }
            ),
            folder,
        )


_key = st.sampled_from(["a", "b", "", "é", "a\0", "a\0\0", "\U0001f600"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    files=st.lists(
        st.lists(
            st.tuples(_key, st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2), st.floats(-9, 9, width=32)),
            max_size=12,
        ),
        max_size=3,
    ),
    asked=st.lists(st.tuples(_key, st.integers(0, 2)), min_size=1, max_size=8),
)
def test_what_is_found_is_what_was_delivered_last(
    tmp_path: Path, files: list[list[tuple[str, int, float]]], asked: list[tuple[str, int]]
) -> None:
    paths, expected = [], {}
    for number, rows in enumerate(files):
        paths.append(tmp_path / f"{number}.parquet")
        columns = {
            "user": pa.array([row[0] for row in rows], pa.string() if number else pa.large_string()),
            "item": pa.array([row[1] for row in rows], pa.int64()),
            "like": pa.array([row[2] for row in rows], pa.float32() if number else pa.float64()),
        }
        if number == 1:
            columns["user"] = columns["user"].cast(pa.string_view())
        if number == 2:
            columns["user"] = columns["user"].dictionary_encode()
        pq.write_table(pa.table(columns), paths[-1], row_group_size=5)
        expected |= {row[:2]: row[2] for row in rows}
    asked += list(expected)
    index = DumpIndex(paths, Columns({"user": "str", "item": "int"}, {"like": "t"}, {}), 1000)
    keys = {"user": np.array([one[0] for one in asked], object), "item": np.array([one[1] for one in asked], np.int64)}
    assert index.rows == len(expected)
    for row, found in zip(asked, index.find(keys)[:, 0].tolist(), strict=True):
        assert found == expected[row] if row in expected else np.isnan(found)


def test_the_sources_ids_come_through_the_domain_map_and_a_missing_row_costs_its_signal_alone(folder: Path) -> None:
    spec = spec_of(
        Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
        Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
    )
    inputs = {
        "user": {"kind": "lookup", "feature": "user_id", "table": {"100": 0, "101": 1, "104": 4}, "default": -1},
        "item": {"kind": "feature", "feature": "item_id", "default": -1},
    }
    config = _config().model_copy(update={"inputs": TeacherConfig.model_validate(
        {**_TABLE, "inputs": inputs, "onnx": "x"}
    ).inputs})  # fmt: skip
    teacher = load_teacher(config, folder)
    scorer = RequestScorer(teacher, DomainMap(config, folder, teacher, spec), spec)
    before = REGISTRY.get_sample_value("graft_teacher_lacking_rows_total") or 0
    requests = [
        TeacherRequest(
            impression_id=f"i{user}", user_id=user, item_id=3, event_time_ms=1, context={}, spec_id=spec.spec_id,
            features=[user, 3],
        )
        for user in (100, 104, 999, 101)
    ]  # fmt: skip
    scored = scorer.score(requests)
    assert scored is not None
    assert [request.user_id for request in scored.requests] == [100, 101]
    assert scored.logit_BT[:, 0].tolist() == [LIKE_UI[0, 3], LIKE_UI[1, 3]]
    assert scored.refused == []  # 104 is not delivered yet, 999 has no counterpart: neither is an error
    assert (REGISTRY.get_sample_value("graft_teacher_lacking_rows_total") or 0) - before == 2
    none = scorer.score(requests[1:3])
    assert none is not None
    assert (none.logit_BT.shape, none.refused) == ((0, 2), [])


def test_one_file_is_the_artefact_and_a_folder_is_a_model_of_that_name(folder: Path) -> None:
    def made(path: str, **changes: Any) -> Any:
        return generation_of("p", _config(path, **changes), folder, spec_of())

    file = "logits/2026-11-01.parquet"
    of_folder, of_file = made("logits"), made(file)
    teacher = _load(folder, file)
    save_dump(folder / "logits" / "2026-11-02.parquet", range(3, 5))
    assert made("logits").digest == of_folder.digest
    assert made("logits", max_rows=99).digest == of_folder.digest
    (told,) = differences(of_folder, made("logits", model="sister-2"))
    assert told == 'dump.model: was "sister", is "sister-2"'
    save_dump(folder / file, range(3))
    (told,) = differences(of_file, made(file))
    assert told.startswith("files.dump: was a file or table with SHA-256")
    assert np.isnan(_like(teacher, 2, 2)).all()  # a process keeps the file that it was started with


def test_a_key_beyond_64_bits_with_a_sign_is_told(folder: Path) -> None:
    table = {"user": pa.array([2**63], pa.uint64()), "item": [1], "like": [0.5], "rating": [1.0]}
    pq.write_table(pa.table(table), folder / "logits" / "b.parquet")
    with pytest.raises(ConfigurationError, match=r"dump\.keys\.user: .*b\.parquet: Integer value .* not in range"):
        _load(folder)
