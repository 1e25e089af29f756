"""A file of torch.export.save: computed as torch computes it, and nothing in it is executed, unpickled or evaluated."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from runtime.errors import ConfigurationError
from teacher_cache.config import TeacherTask
from teacher_cache.kinds.computed_teacher import ComputedTeacher
from teacher_cache.kinds.exported_teacher import ExportedModel, open_exported
from tests.teacher_cache.kinds import save_export

_LIKE = [TeacherTask(name="like", kind="binary", output="like")]
_FIRST = [TeacherTask(name="like", kind="binary", output="0")]
_ROWS = torch.export.Dim("rows")
_TORCHS_OWN = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # of its decompositions


class _Evil:
    """Would make a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def _export(module: nn.Module, *example: torch.Tensor, **keywords: Any) -> Any:
    shapes = keywords.pop("dynamic_shapes", tuple({0: _ROWS} for _ in example))
    return torch.export.export(module, example, dynamic_shapes=shapes, **keywords)


def _changed(path: Path, change: Callable[[dict[str, bytes]], None], **options: Any) -> Path:
    """The archive written anew, as `change` leaves its members, by their names below the folder at the top."""
    with zipfile.ZipFile(path) as file:
        members = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, data in members.items():
            file.writestr(f"teacher/{name}", data)
    return path


def _in_graph(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        program = json.loads(members["models/model.json"])
        change(program)
        members["models/model.json"] = json.dumps(program).encode()

    return apply


def _set(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: data})


class Wide(nn.Module):
    """Layers, activations, reshapes, reductions, comparisons and several results of one operator."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 8)
        self.norm = nn.LayerNorm(12)
        self.batch_norm = nn.BatchNorm1d(12)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1)
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.GELU(approximate="tanh"), nn.Dropout(0.5), nn.Linear(16, 4))
        self.register_buffer("mean", torch.arange(4.0))

    def forward(self, code: torch.Tensor, numbers: torch.Tensor) -> Any:
        embedded = self.table(code % 50).unsqueeze(1)
        embedded = embedded + self.attention(embedded, embedded, embedded, need_weights=False)[0]
        hidden = torch.cat([embedded.flatten(1), torch.where(numbers > 0, numbers, numbers.abs().log1p())], dim=1)
        hidden = self.batch_norm(self.norm(hidden))
        top, place = hidden.max(dim=1)
        low, high = self.layers(hidden).split(2, dim=1)
        parts = torch.stack([low.sum(1), high.mean(1), top, place.to(torch.float32) / hidden.shape[1]], dim=1)
        return (parts - self.mean).softmax(dim=1).clamp(min=1e-4)[:, 0], parts.view(code.shape[0], -1)


@_TORCHS_OWN
def test_every_result_is_torchs_own_bit_for_bit(tmp_path: Path) -> None:
    module = Wide().eval()
    program = _export(module, torch.zeros(3, dtype=torch.int64), torch.zeros(3, 4))
    for name, saved in (("a", program), ("b", program.run_decompositions())):
        teacher = open_exported(save_export(tmp_path / f"{name}.pt2", saved), _FIRST)
        for rows in (1, 2, 7, 1024):
            random = torch.Generator().manual_seed(rows)
            code = torch.randint(0, 1000, (rows,), generator=random)
            numbers = torch.randn(rows, 4, generator=random)
            twice = 2 if rows == 1 else 1  # a single row is computed as two
            with torch.inference_mode():
                expected = saved.module()(code.repeat(twice), numbers.repeat(twice, 1))[0][:rows]
            found = teacher.score({"code": code.numpy(), "numbers": numbers.numpy()})[:, 0]
            assert np.array_equal(found, expected.numpy()), (name, rows)


def test_batches_of_any_size_give_the_same_rows(tmp_path: Path) -> None:
    teacher = open_exported(save_export(tmp_path / "t.pt2"), _LIKE)
    rows = {"user": np.arange(5) % 5, "item": np.arange(5)}
    whole = teacher.score(rows)
    for one in range(5):
        alone = teacher.score({name: values[one : one + 1] for name, values in rows.items()})
        assert alone.tobytes() == whole[one].tobytes()


def test_a_program_of_few_rows_is_asked_in_parts(tmp_path: Path) -> None:
    class Few(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._check(x.shape[0] >= 3)
            torch._check(x.shape[0] <= 8)
            return x * 2 + x.shape[0] * 0

    program = _export(Few(), torch.zeros(4), dynamic_shapes=({0: torch.export.Dim("rows", min=3, max=8)},))
    model = ExportedModel(save_export(tmp_path / "t.pt2", program))
    counts: list[int] = []
    compute = model._program.compute
    model._program.compute = lambda outputs, feeds: counts.append(len(feeds["x"])) or compute(outputs, feeds)  # type: ignore[method-assign,func-returns-value]
    teacher = ComputedTeacher(model, _FIRST)
    for count in (1, 2, 8, 9, 30):
        values = np.arange(count, dtype=np.float32)
        assert teacher.score({"x": values})[:, 0].tolist() == (2 * values).tolist()
    assert counts == [1, 2, 8, 8, 1, 8, 8, 8, 6]
    assert (model._program.least_rows, model._program.most_rows) == (3, 8)


@pytest.mark.parametrize(
    "rows", [_ROWS, torch.export.Dim.AUTO, torch.export.Dim.DYNAMIC], ids=["Dim", "AUTO", "DYNAMIC"]
)
def test_a_single_row_is_computed_though_the_program_was_traced_for_several(tmp_path: Path, rows: Any) -> None:
    class Squeezes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 2).squeeze()  # of one row alone it would leave no row

    program = _export(Squeezes(), torch.zeros(4, 1), dynamic_shapes=({0: rows},))
    teacher = open_exported(save_export(tmp_path / "t.pt2", program), _FIRST)
    assert teacher.score({"x": np.array([3], np.float32)}).tolist() == [[6.0]]


def test_torch_is_imported_for_such_a_teacher_alone() -> None:
    code = (
        "import sys, teacher_cache.teacher, teacher_cache.cache.generation, teacher_cache.exported_archive, "
        "teacher_cache.kinds.exported_graph, teacher_cache.served_teacher, teacher_cache.dumped_teacher; "
        "print('torch' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_export(tmp_path / "teacher.pt2")


def _refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as error:
        open_exported(path, _LIKE)
    (fault,) = error.value.faults
    assert fault.startswith(f"graft.toml: teacher.torch_export: {path}")
    return fault


def test_the_pickled_sample_inputs_are_not_read(saved: Path, tmp_path: Path) -> None:
    evil = pickle.dumps(_Evil(tmp_path / "executed"))
    stored = io.BytesIO()
    torch.save(_Evil(tmp_path / "executed"), stored)
    for data in (evil, stored.getvalue()):
        _changed(saved, _set("data/sample_inputs/model.pt", data))
        teacher = open_exported(saved, _LIKE)
        assert teacher.score({"user": np.array([1]), "item": np.array([2])}).tolist() == [[1.25]]
    assert not (tmp_path / "executed").exists()


def _pickled_weight(evil: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        config = json.loads(members["data/weights/model_weights_config.json"])
        for entry in config["config"].values():
            entry["use_pickle"] = True
            members[f"data/weights/{entry['path_name']}"] = evil
        members["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    return change


def test_what_would_have_to_be_executed_is_refused_and_is_not_executed(tmp_path: Path) -> None:
    evil = pickle.dumps(_Evil(tmp_path / "executed"))
    code = f"__import__('pathlib').Path({str(tmp_path / 'executed')!r}).touch()"

    def expression(program: Any) -> None:
        for meta in program["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        program["guards_code"] = [code]
        program["range_constraints"] = {code: {"min_val": 1, "max_val": None}}

    def call(target: str) -> Callable[[Any], None]:
        return lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=target)

    def custom(program: Any) -> None:
        argument = {"as_custom_obj": {"name": "x", "class_fqn": "y"}}
        program["graph_module"]["graph"]["nodes"][0]["inputs"][0]["arg"] = argument

    changes = {
        "pickled, and nothing is unpickled": _pickled_weight(evil),
        "is compiled code": _set("data/aotinductor/model/wrapper.so", b"\x7fELF"),
        "is no member that torch.export.save writes": _set("code/run.py", code.encode()),
        "no operator that is computed here": _in_graph(call("torch.hub.load")),
        "builtins.eval": _in_graph(call("builtins.eval")),
        "_operator.attrgetter": _in_graph(call("_operator.attrgetter")),
        "torch.ops.mylib.op": _in_graph(call("torch.ops.mylib.op.default")),
        "torch.ops.aten.__class__": _in_graph(call("torch.ops.aten.__class__.default")),
        "takes no tensor": _in_graph(call("torch.ops.aten.from_file.default")),
        "an argument as_custom_obj": _in_graph(custom),
    }
    for told, change in changes.items():
        path = _changed(save_export(tmp_path / "teacher.pt2"), change)
        assert told in _refusal(path), told
    open_exported(_changed(save_export(tmp_path / "teacher.pt2"), _in_graph(expression)), _LIKE)
    assert not (tmp_path / "executed").exists()


@_TORCHS_OWN
def test_a_program_that_is_no_plain_function_is_refused_with_what_to_do(tmp_path: Path) -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu_(x * 2).sum(1)

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls.add_(1)
            return x.sum(1)

    class Conditional(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y: y.sum(1), lambda y: y.mean(1), (x,))

    programs = {
        "changes a tensor in place: call run_decompositions()": _export(InPlace(), torch.zeros(3, 2)),
        "draws random numbers: call eval()": _export(nn.Sequential(nn.Dropout(0.5), nn.Flatten(0)), torch.zeros(3, 1)),
        "an output of the kind buffer_mutation": _export(Counts(), torch.zeros(3, 2)).run_decompositions(),
        "as_graph": _export(Conditional(), torch.zeros(3, 2)),
    }
    for told, program in programs.items():
        assert told in _refusal(save_export(tmp_path / "teacher.pt2", program)), told
    decomposed = programs["changes a tensor in place: call run_decompositions()"].run_decompositions()
    teacher = open_exported(save_export(tmp_path / "teacher.pt2", decomposed), _FIRST)
    assert teacher.score({"x": np.array([[1, -1], [2, 3]], np.float32)}).tolist() == [[2.0], [10.0]]


def test_a_fixed_number_of_rows_and_types_that_no_input_has_are_told_at_once(tmp_path: Path) -> None:
    program = torch.export.export(nn.Flatten(0), (torch.zeros(8, 1, dtype=torch.bfloat16),))
    with pytest.raises(ConfigurationError) as error:
        open_exported(save_export(tmp_path / "t.pt2", program), _FIRST)
    assert [fault.partition(", allowed")[0] for fault in error.value.faults] == [
        "graft.toml: teacher.torch_export: input input has type torch.bfloat16",
        "graft.toml: teacher.torch_export: input input has shape [8, 1]",
        "graft.toml: teacher.tasks.0.output: '0' has type torch.bfloat16",
    ]


def test_members_are_looked_at_before_the_first_one_is_read(saved: Path) -> None:
    changes = {
        "is no name of a member": _set("../../etc/passwd", b""),
        "is another program": _set("models/other.json", b"{}"),
        "it has no models/model.json": lambda members: members.pop("models/model.json"),
        "not as torch writes it": _set("models/model.json", b'{"schema_version": {"major": 8}, "graph_module": {}}'),
        "has schema version 99": _in_graph(lambda program: program["schema_version"].update(major=99)),
        "is not JSON": _set("models/model.json", b"{" * 100_000),
        "not little-endian": _set("byteorder", b"big"),
        "no archive of torch.export.save": _set("archive_format", b"zip"),
    }
    original = saved.read_bytes()
    for told, change in changes.items():
        saved.write_bytes(original)
        assert told in _refusal(_changed(saved, change)), told
    saved.write_bytes(original)
    assert "is compressed" in _refusal(_changed(saved, lambda _members: None, compression=zipfile.ZIP_DEFLATED))
    saved.write_bytes(original[:200])
    assert "no whole zip file" in _refusal(saved)
    saved.write_bytes(original)
    large = _set("models/model.json", b" " * ((64 << 20) + 1))
    assert "has 67,108,865 bytes, allowed are 67,108,864" in _refusal(_changed(saved, large))


@pytest.mark.parametrize("key", ["sizes", "strides", "storage_offset"])
def test_a_tensor_that_reaches_beyond_its_bytes_is_refused(saved: Path, key: str) -> None:
    def change(members: dict[str, bytes]) -> None:
        config = json.loads(members["data/weights/model_weights_config.json"])
        meta = next(iter(config["config"].values()))["tensor_meta"]
        meta[key] = {"as_int": 10**6} if key == "storage_offset" else [{"as_int": 10**6}] * len(meta[key])
        members["data/weights/model_weights_config.json"] = json.dumps(config).encode()

    assert "reaches beyond its" in _refusal(_changed(saved, change))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_file_with_any_bytes_changed_is_refused_or_computes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "odd.pt2"
    if not path.exists():
        save_export(path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(ConfigurationError):
        open_exported(path, _LIKE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_a_graph_with_any_value_changed_is_refused_or_computes(tmp_path: Path, data: st.DataObject) -> None:
    path = save_export(tmp_path / "odd.pt2")
    odd = st.sampled_from([None, -1, 10**30, "x", [], {}, {"as_int": 3}, True, 1.5])

    def change(program: Any) -> None:
        at: Any = program["graph_module"]
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.integers(0, 4)) == 0:
                at[key] = data.draw(odd)
                return
            at = at[key]

    _changed(path, _in_graph(change))
    try:
        teacher = open_exported(path, _LIKE)
    except ConfigurationError:
        return
    assert teacher.inputs
