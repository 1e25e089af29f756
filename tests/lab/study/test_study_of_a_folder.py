"""`graft study FOLDER` with nothing else: its plan, its words, its page, and the same again."""

import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from features.repo.store import compile_spec
from graft.cli import cli
from graft.project import load_project
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher
from tests.lab.study.conftest import NO_REDIS, Pair

FIXTURE = Path(__file__).parents[3] / "fixtures" / "simulated"
DEVICES = ("phone", "speaker", "car")
SIZE = ("--events", "2000", "--seeds", "5")


def _study(folder: Path, out: Path, *more: str) -> Result:
    arguments = ["study", str(folder), "--out", str(out), "--jobs", "2", *more]
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def _permuted(folder: Path) -> Path:
    """A copy of the pair whose teacher says of each row what it says of another: a dump of all rows there can be."""
    folder = Path(shutil.copytree(FIXTURE, folder))
    project = load_project(folder)
    spec = compile_spec(project.repo, NO_REDIS, project.features)
    users, items = (
        {row[key]: row for row in pq.read_table(project.repo / "data" / f"{name}.parquet").to_pylist()}
        for name, key in (("listener", "user_id"), ("track", "item_id"))
    )
    rows = list(itertools.product(users, items, DEVICES))
    known = [
        {f"listener:{name}": value for name, value in users[user].items()}
        | {f"track:{name}": value for name, value in items[item].items()}
        | {"user_id": user, "item_id": item, "context:device": device}
        for user, item, device in rows
    ]
    columns = {feature.name: [row.get(feature.name) for row in known] for feature in spec.features}
    config = project.needed_teacher
    teacher = load_teacher(config, folder)
    said = teacher.describe(DomainMap(config, folder, teacher, spec).map_rows(columns).inputs)
    other = np.random.default_rng(1).permutation(len(rows))
    keys = dict(zip(("viewer", "work", "device"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(
        pa.table({**keys, **{task.output: said[task.name][other] for task in config.tasks}}), folder / "d.parquet"
    )
    toml = (folder / "graft.toml").read_text()
    dump = '[teacher.dump]\npath = "d.parquet"\nmodel = "m"\nkeys = { viewer = "str", work = "int", device = "str" }\n'
    inputs = "".join(
        f'[teacher.inputs.{name}]\nkind = "feature"\nfeature = "{feature}"\ndefault = {default}\n'
        for name, feature, default in (
            ("viewer", "user_id", '""'),
            ("work", "item_id", "-1"),
            ("device", "context:device", '"phone"'),
        )
    )
    toml = toml.replace('onnx = "teacher.onnx"\n', "")
    toml = re.sub(r"\[teacher\.inputs\].*?(?=\[\[distillation)", dump + inputs, toml, count=1, flags=re.DOTALL)
    (folder / "graft.toml").write_text(toml)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_says_of_the_simulated_pair_that_the_teacher_helps_and_of_a_permuted_one_that_it_does_not(
    tmp_path: Path,
) -> None:
    right, permuted = shutil.copytree(FIXTURE, tmp_path / "right"), _permuted(tmp_path / "permuted")
    for folder in (right, permuted):  # a tenth of the rows, which take most of a learner's time
        with (folder / "graft.toml").open("a") as toml:
            toml.write("\n[bootstrap]\nrows = 5_000\n")
    told = _study(right, tmp_path / "a", *SIZE).stdout
    assert told.startswith("The teacher helps `click`. Served, the student's AUC is 0.")
    assert "What the teacher's inputs add, served," in told
    assert "no feature feeds `viewer_id`, `viewer_views`, `viewer_play_share`" in told
    assert "More data: the student's served AUC is 0." in told
    assert "graft.toml: keep [teacher] and [[distillation]] as they are" in told
    told = _study(permuted, tmp_path / "b", *SIZE).stdout
    assert told.startswith("The teacher does not help `click`. Served, the student's AUC is 0.")
    assert "remove [teacher] and [[distillation]]" in told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dump_that_lacks_what_nobody_was_shown_is_studied_without_a_bootstrap(tmp_path: Path) -> None:
    folder = _permuted(tmp_path / "pair")
    toml = folder / "graft.toml"
    toml.write_text(toml.read_text().replace('default = "phone"\n', 'default = ""\n', 1))  # there is no such row
    found = json.loads(_study(folder, tmp_path / "out", "--events", "60", "--seeds", "1", "--json").stdout)
    assert found["bootstrap_steps"] == 0
    assert any(line.startswith("The student learnt without a bootstrap:") for line in found["answer"])
    assert "learns without a bootstrap: the teacher scored none" in (tmp_path / "out" / "learners.log").read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_plan_is_told_and_learns_the_same_again(pair: Pair, tmp_path: Path) -> None:
    """Without a teacher, which is quickest: a first learner says what fits, and the plan's numbers repeat it."""
    folder = _without_teacher(pair.project.folder, tmp_path / "pair")
    done = _study(folder, tmp_path / "out", "--events", "150", "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert "study: the first 150 examples, 10 seeds (--events 150 --seeds 10), about " in done.stderr
    assert (found["events"], found["seeds"]) == (150, 10)
    answer = found["answer"]
    assert answer[0].startswith("Against the best plain model of `click`: served,")
    assert answer[-1] == "Learnt: the first 150 examples, 10 seeds (--events 150 --seeds 10)."
    page = (tmp_path / "out" / "study.html").read_text("utf-8")
    assert page.index("Against the best plain model of <code>click</code>") < page.index("data:image/png;base64,")
    again = json.loads(_study(folder, tmp_path / "other", "--events", "150", "--seeds", "10", "--json").stdout)
    assert again == found


def _without_teacher(folder: Path, to: Path) -> Path:
    """The pair before anyone has trained a teacher for it."""
    to = Path(shutil.copytree(folder, to))
    toml = (to / "graft.toml").read_text()
    toml = re.sub(r'    "\w+_teacher:\w+",\n', "", toml)
    toml = re.sub(r'"\w+_teacher:watch" = 3\.0.*\n', "", toml)
    toml = re.sub(r"\[\[features\.profiles\]\].*?(?=\n\n)", "", toml, flags=re.DOTALL)
    toml = re.sub(r"\[teacher\].*(?=\[publish\])", "", toml, count=1, flags=re.DOTALL)
    (to / "graft.toml").write_text(toml)
    definitions = to / "feature_repo" / "definitions.py"
    definitions.write_text(re.sub(r", listener_teacher, track_teacher", "", definitions.read_text()))
    return to
