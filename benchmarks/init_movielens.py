"""`graft init` on MovieLens' CSV files against the pair that was written by hand: AUC of both arms, seconds of init.

python benchmarks/init_movielens.py [--events 20000] [--seeds 1] [--work DIR]. The ONNX teacher is the hand-made pair's,
with that pair's domain map inside, so that it takes texts and numbers as the files have them.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from graft.project import load_project
from teacher_cache.config import BucketInput, LinearInput, LookupInput
from teacher_cache.lookup_table import read_table

# What the files call it that feeds these inputs.
_CALLED = {
    "movie_id": "title",
    "movie_decade": "title_year",
    "age_code": "age",
    "gender_code": "gender",
    "occupation_code": "occupation",
}
_AGES = range(1, 120)
_GRID = """events = {events}
baseline = "grafted"

[[variants]]
name = "grafted"
bootstrap = true
"""


def published_teacher(pair: Path, to: Path) -> None:
    """The pair's teacher with its domain map inside."""
    project = load_project(pair)
    model = onnx.load(pair / "teacher.onnx")
    graph, first = model.graph, []
    given = {one.name: one for one in graph.input}
    for name, mapped in project.needed_teacher.inputs.items():
        called, kind = _CALLED.get(name, name), TensorProto.STRING
        if isinstance(mapped, LookupInput):
            table = {str(key): int(code) for key, code in read_table(mapped, pair).items()}
            codes = {"keys_strings": list(table), "values_int64s": list(table.values())}
            first.append(_encoder(called, name, int(mapped.default), codes))
        elif isinstance(mapped, BucketInput):
            kind = TensorProto.INT64
            codes = {"keys_int64s": list(_AGES), "values_int64s": [_bucket(mapped, age) for age in _AGES]}
            first.append(_encoder(called, name, int(mapped.default), codes))
        elif isinstance(mapped, LinearInput):
            kind = TensorProto.FLOAT
            for key, value in (("multiply", mapped.multiply), ("add", mapped.add)):
                graph.initializer.append(helper.make_tensor(f"{name}.{key}", TensorProto.FLOAT, [], [value]))
            first.append(helper.make_node("Mul", [called, f"{name}.multiply"], [f"{name}.multiplied"]))
            first.append(helper.make_node("Add", [f"{name}.multiplied", f"{name}.add"], [name]))
        else:
            continue
        given[name] = helper.make_tensor_value_info(called, kind, ["B"])
    made = helper.make_graph([*first, *graph.node], "teacher", list(given.values()), graph.output, graph.initializer)
    opsets = [*model.opset_import, helper.make_opsetid("ai.onnx.ml", 2)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=model.ir_version), to)


def _encoder(called: str, name: str, default: int, codes: dict[str, Any]) -> onnx.NodeProto:
    return helper.make_node("LabelEncoder", [called], [name], domain="ai.onnx.ml", default_int64=default, **codes)


def _bucket(mapped: BucketInput, value: int) -> int:
    return int(mapped.codes[sum(value >= boundary for boundary in mapped.boundaries)])


def graft(*arguments: str) -> tuple[float, str]:
    """Run a command; its seconds, and what it says."""
    began = time.monotonic()
    print(f"$ graft {shlex.join(arguments)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", "graft", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return time.monotonic() - began, done.stdout


def aucs(project: Path, grid: Path, seeds: int) -> dict[str, Any]:
    """Of each task, row by row and served: student, control and teacher after a bootstrap, over the first examples."""
    out = project.with_name(f"study-{project.name}")
    _, said = graft("study", str(project), "--grid", str(grid), "--seeds", str(seeds), "--out", str(out), "--json")
    found = json.loads(said)
    return {name: found[name] for name in ("auc", "served", "rmse")}


def measure(work: Path, events: int, seeds: int) -> dict[str, Any]:
    hand, csv, grid = work / "hand", work / "csv", work / "grid.toml"
    grid.write_text(_GRID.format(events=events))
    graft("pair", "make", "movielens", str(hand))
    graft("pair", "train-teacher", str(hand))
    graft("pair", "csv", str(csv))
    published_teacher(hand, work / "sister.onnx")
    source = [word for name, file in _files("--source-") for word in (name, str(csv / "sister" / file))]
    found = {"hand": aucs(hand, grid, seeds)}
    for name, teacher in (("onnx", ["--teacher", str(work / "sister.onnx")]), ("source", source)):
        files = [word for option, file in _files("--") for word in (option, str(csv / file))]
        seconds, _ = graft("init", str(work / name), *files, *teacher, "--yes")
        found[name] = {"seconds_of_init": round(seconds), **aucs(work / name, grid, seeds)}
    return found


def _files(prefix: str) -> list[tuple[str, str]]:
    return [(f"{prefix}events", "ratings.csv"), (f"{prefix}users", "users.csv"), (f"{prefix}items", "movies.csv")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000, help="the first N ratings of the target")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, help="a new folder, which stays")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(exist_ok=True)
        print(json.dumps(measure(work, given.events, given.seeds), indent=1))


if __name__ == "__main__":
    main()
