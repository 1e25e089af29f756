"""A teacher from the source's log: by `graft init --source-events`, and by `graft teacher fit` in a project."""

import gzip
import json
import random
import re
import shutil
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from graft.project import load_project
from teacher_cache.config import FeatureInput, LinearInput, LookupInput
from tests.graft.fit.conftest import SECOND, Files, write_domain

Run = Callable[..., Result]
FIXTURE = Path(__file__).parents[3] / "fixtures" / "simulated"
USED_MS = 1000 * (SECOND + 60 * 5_399) + 1  # of 6,000 ratings the first 5,400 are not held out


def _json(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def shop(graft: Run, tmp_path: Path, target: Files) -> Path:
    """A project without a teacher."""
    assert graft("init", tmp_path / "shop", *target.options(), "--yes").exit_code == 0
    return tmp_path / "shop"


def test_init_trains_a_teacher_of_what_both_share_and_the_project_is_sound(graft, tmp_path, source, target):
    folder = tmp_path / "shop"
    result = graft("init", folder, *target.options(), *source.options("--source-"), "--yes", "--json")
    said = _json(result)
    assert said["faults"] == []
    assert said["teacher_inputs"] == {
        "user_gender": "user_profile:gender",
        "user_age": "user_profile:age",
        "item_title": "item_profile:title",
        "item_genres": "item_profile:genres",
        "item_length": "item_profile:length",
        "source_user": None,
    }
    assert said["profiles"] == {"user_teacher": ["liked", "rating"], "item_teacher": ["liked", "rating", "item_vector"]}
    report = said["teacher"]
    assert [report[f"{name}_rows"] for name in ("learnt", "judged", "held_out")] == [4_860, 540, 600]
    liked, rating = report["tasks"]
    assert liked["name"] == "liked"
    assert 0.85 < liked["auc"] < 1
    assert rating["r2"] > 0.5
    assert rating["rmse"] < 0.75 * rating["rmse_of_mean"]
    teacher = load_project(folder).teacher
    assert teacher is not None
    assert str(teacher.onnx) == "teacher.onnx"
    assert [(task.name, task.kind) for task in teacher.tasks] == [("liked", "binary"), ("rating", "regression")]
    assert teacher.trained_until == datetime.fromtimestamp(USED_MS / 1000, UTC)
    title, age = teacher.inputs["item_title"], teacher.inputs["user_age"]
    assert isinstance(title, LookupInput)
    codes = json.loads((folder / str(title.file)).read_text())
    assert codes == {name: code for code, name in enumerate(sorted(codes), 1)}
    assert len(codes) == 60
    assert isinstance(age, LinearInput)
    assert 18 <= age.minimum < age.maximum <= 70
    assert isinstance(teacher.inputs["item_genres"], FeatureInput)
    assert load_project(folder).features.passthrough == ["item_profile:title"]
    assert {row.teacher_task: row.student_task for row in load_project(folder).distillation} == {
        "liked": "liked",
        "rating": "rating",
    }
    assert "user_id  " in result.stderr
    assert any(point.startswith("whether these mean the same there as here") for point in said["only_you_know"])


def test_fit_gives_a_project_that_has_no_teacher_what_init_would_have_written(graft, tmp_path, source, target, shop):
    before = tomllib.loads((shop / "graft.toml").read_text())
    said = _json(graft("teacher", "fit", shop, *source.options(), "--json"))
    assert said["file"] == "teacher.onnx"
    fresh = tmp_path / "fresh" / "shop"
    assert graft("init", fresh, *target.options(), *source.options("--source-"), "--yes").exit_code == 0
    assert (shop / "teacher.onnx").read_bytes() == (fresh / "teacher.onnx").read_bytes(), "the same log, the same file"
    ours, theirs = (tomllib.loads((folder / "graft.toml").read_text()) for folder in (shop, fresh))
    features = theirs["features"]
    assert [profile["entity"] for profile in features.pop("profiles")] == ["user", "item"]
    for role in ("dense", "embedding"):
        features[role] = [name for name in features[role] if "_teacher:" not in name]
    features["defaults"] = {name: value for name, value in features["defaults"].items() if "_teacher:" not in name}
    assert ours == theirs
    assert any("is no feature yet" in point for point in said["only_you_know"])
    assert {key: value for key, value in ours.items() if key not in ("teacher", "distillation", "features")} == {
        key: value for key, value in before.items() if key != "features"
    }
    assert "No teacher" not in (shop / "graft.toml").read_text()
    assert graft("--project", shop, "check").exit_code == 0


def test_a_teacher_that_is_there_is_never_overwritten(graft, source, shop):
    without = (shop / "graft.toml").read_bytes()
    assert graft("teacher", "fit", shop, *source.options()).exit_code == 0
    kept = {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()}
    refused = graft("teacher", "fit", shop, *source.options())
    assert refused.exit_code == 1
    assert "has a [teacher] already, which stays as it is" in refused.output
    assert {path: path.read_bytes() for path in kept} == kept
    (shop / "graft.toml").write_bytes(without)
    for path in (shop / "teacher.onnx", shop / "teacher_codes"):
        refused = graft("teacher", "fit", shop, *source.options())
        assert f"{path}: is there already and is not overwritten" in refused.output
        path.rename(path.with_suffix(".old"))
    assert graft("teacher", "fit", shop, *source.options()).exit_code == 0


def test_context_of_an_unsorted_gzip_without_tables_and_a_task_named_as_a_part_of_the_file(graft, tmp_path):
    draw = random.Random(1)
    head, devices = "user,item,ts,heads,device,position\n", ["phone", "tv", "\u2603 x"]
    for name, rows in (("here.csv", 100), ("there.csv.gz", 1_000)):
        lines = [
            f"u{draw.randrange(40)},i{draw.randrange(30)},{SECOND + draw.randrange(10**5)},"
            f"{draw.choice(['1', '0', ''])},{draw.choice(devices)},{draw.random() * 9:.2f}\n"
            for _ in range(rows)
        ]
        text = (head + "".join(lines)).encode()
        (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    given = ["--events", tmp_path / "here.csv", "--source-events", tmp_path / "there.csv.gz"]
    labels = ["--label", "heads = heads", "--source-label", "heads = heads"]
    said = _json(graft("init", tmp_path / "shop", *given, *labels, "--yes", "--json"))
    assert said["faults"] == []
    assert said["teacher_inputs"] == {"context_device": "context:device", "context_position": "context:position"}
    project = load_project(tmp_path / "shop")
    assert [task.output for task in project.teacher.tasks] == ["heads_2"], "heads is a name within the file"
    assert [(row.teacher_task, row.student_task) for row in project.distillation] == [("heads_2", "heads")]
    codes = json.loads((tmp_path / "shop" / "teacher_codes" / "context_device.json").read_text())
    assert codes == {name: code for code, name in enumerate(sorted(devices), 1)}


def test_a_project_written_by_hand_gets_a_teacher_of_its_own_features(graft, tmp_path):
    folder = Path(shutil.copytree(FIXTURE, tmp_path / "app"))
    draw = random.Random(1)
    (tmp_path / "people.csv").write_text(
        "viewer,Country,age\n"
        + "".join(f"v{i},{draw.choice(['india', 'japan'])},{draw.randint(20, 60)}\n" for i in range(40))
    )
    (tmp_path / "clips.csv").write_text(
        "video,style,tempo\n"
        + "".join(f"c{i},{draw.choice(['jazz', 'rap'])},{draw.uniform(80, 160)}\n" for i in range(30))
    )
    rows = [f"v{draw.randrange(40)},c{draw.randrange(30)},{SECOND + i},{draw.randrange(2)}" for i in range(400)]
    (tmp_path / "log.csv").write_text("viewer,video,ts,clicked\n" + "\n".join(rows) + "\n")
    tables = ["--users", tmp_path / "people.csv", "--items", tmp_path / "clips.csv"]
    toml = (folder / "graft.toml").read_text()
    (folder / "graft.toml").write_text(
        re.sub(
            r"^\[{1,2}(distillation|teacher|features\.profiles).*?(?=^\[{1,2}(?!\[|distillation|teacher|features\.profiles)|\Z)",
            "",
            toml,
            flags=re.DOTALL | re.MULTILINE,
        )
    )
    (folder / "teacher.onnx").unlink()
    said = _json(graft("teacher", "fit", folder, "--events", tmp_path / "log.csv", *tables, "--json"))
    assert said["tasks"][0]["name"] == "clicked"
    tables = tomllib.loads((folder / "graft.toml").read_text())
    fed = {name: mapped["feature"] for name, mapped in tables["teacher"]["inputs"].items()}
    assert fed == {
        "user_age": "listener:age",
        "user_country": "listener:country",
        "item_style": "track:style",
        "item_tempo": "track:tempo",
    }
    assert [(row["teacher_task"], row["student_task"]) for row in tables["distillation"]] == [("clicked", "click")]


def test_ids_are_inputs_only_where_they_are_the_same_ids(graft, tmp_path, source, target):
    again = write_domain(tmp_path / "again", rows=300, users=120, start=SECOND + 1, seed=2)  # the same people and films
    said = _json(graft("init", tmp_path / "one", *again.options(), *source.options("--source-"), "--yes", "--json"))
    assert [said["teacher_inputs"][name] for name in ("user_id", "item_id")] == ["user_id", "item_id"]
    assert "source_user" not in said["teacher_inputs"], "the users are the same: what they like is theirs already"
    shown = graft("init", tmp_path / "two", *target.options(), *source.options("--source-"), "--yes").output
    for entity in ("user", "item"):
        said = rf"the source has 100% of the {entity}s here, and \w+ is equal in \d+% of them, about as by chance"
        assert re.search(said, shown), shown


def test_a_source_of_later_years_sets_no_cut_off_and_says_so(graft, tmp_path, target):
    later = write_domain(tmp_path / "later", rows=400, users=25, start=SECOND + 10**8, seed=2)
    said = _json(graft("init", tmp_path / "shop", *target.options(), *later.options("--source-"), "--yes", "--json"))
    assert load_project(tmp_path / "shop").teacher.trained_until is None
    assert any("all of them lie before the source's, as in data of other years" in p for p in said["only_you_know"])
    assert any("400 rows are few" in warning for warning in said["teacher"]["warnings"])


def test_nothing_in_common_is_an_error_that_says_what_can_be_done(graft, tmp_path, target):
    (tmp_path / "log.csv").write_text(
        "viewer,video,ts,liked\n" + "".join(f"v{i % 7},c{i % 5},{SECOND + i},{i % 2}\n" for i in range(100))
    )
    result = graft("init", tmp_path / "shop", *target.options(), "--source-events", tmp_path / "log.csv", "--yes")
    assert result.exit_code == 1
    assert "source and target share no column" in result.output
    assert "name tables of both (users, items), and rename columns that mean the same" in result.output
    assert not (tmp_path / "shop").exists()


def test_a_source_whose_labels_never_vary_is_an_error_and_one_such_label_a_warning(graft, tmp_path, source, target):
    options = [*target.options(), *source.options("--source-"), "--yes", "--json"]
    none = graft("init", tmp_path / "none", *options, "--source-label", "seen = 1")
    assert none.exit_code == 1
    assert "no label varies, so there is nothing to learn: seen = 1 is 1 in every row that is learnt" in none.output
    assert not (tmp_path / "none").exists()
    given = ["--source-label", "seen = 1", "--source-label", "loved = rating >= 5"]
    said = _json(graft("init", tmp_path / "one", *options, *given))
    assert [task["name"] for task in said["teacher"]["tasks"]] == ["loved"]
    assert any("seen = 1 is 1 in every row" in warning for warning in said["teacher"]["warnings"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--source-users", "users.csv"], "--source-users needs --source-events"),
        (["--source-events", "x.csv", "--teacher", "{teacher}"], "--teacher and --source-events exclude each other"),
    ],
)
def test_options_that_do_not_go_together_are_refused(graft, tmp_path, target, given, said):
    (tmp_path / "t.onnx").touch()
    given = [one.replace("{teacher}", str(tmp_path / "t.onnx")) for one in given]
    result = graft("init", tmp_path / "shop", *target.options(), *given)
    assert result.exit_code == 2
    assert said in result.output


def test_a_question_about_the_source_names_the_options_of_the_source(graft, tmp_path, target):
    (tmp_path / "log.csv").write_text("a,b,c\n1,2,3\n")
    result = graft("init", tmp_path / "shop", *target.options(), "--source-events", tmp_path / "log.csv", "--yes")
    assert "the source's log: which column is the time?" in result.output
    assert "say --source-map time=COLUMN" in result.output


def test_a_file_of_a_teacher_that_lies_there_is_not_overwritten_by_init(graft, tmp_path, source, target):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "teacher.onnx").write_text("mine")
    result = graft("init", tmp_path / "shop", *target.options(), *source.options("--source-"), "--yes")
    assert "teacher.onnx: is there already and is not overwritten" in result.output
    assert (tmp_path / "shop" / "teacher.onnx").read_text() == "mine"


def test_the_project_asks_the_teacher_what_the_network_says_of_the_same_row(graft, tmp_path, source, target):
    from features.repo.store import check_spec  # noqa: PLC0415 - Feast
    from graft.fit.domain import SourceFiles, domain_of_project, read_source  # noqa: PLC0415
    from graft.fit.fit import fit, prepare, training_rows  # noqa: PLC0415
    from graft.fit.network import predict  # noqa: PLC0415 - torch
    from graft.init.roles import Given  # noqa: PLC0415
    from teacher_cache.domain.domain_map import DomainMap  # noqa: PLC0415
    from teacher_cache.kinds.load import load_teacher  # noqa: PLC0415

    folder = tmp_path / "shop"
    assert graft("init", folder, *target.options(), *source.options("--source-"), "--yes").exit_code == 0
    project = load_project(folder)
    log = read_source(SourceFiles(str(source.ratings), str(source.users), str(source.movies)), Given())
    target = domain_of_project(project, "redis://localhost:6379", with_unlisted=False)
    fitted = fit(prepare(target, log), lambda *_: None)
    spec = check_spec(project.repo, "redis://localhost:6379", project.features).spec
    teacher = load_teacher(project.teacher, folder)
    place = {name: log.ids[name].place_N[:50] for name in ("user", "item")}
    columns = {feature.name: [feature.default] * 50 for feature in spec.features}
    for entity in ("user", "item"):
        for feature in log.features:
            if feature.entity == entity:
                values = log.values_of(feature).to_pylist()
                columns[feature.name] = [values[at] for at in place[entity]]
    inputs = DomainMap(project.teacher, folder, teacher, spec).map_rows(columns).inputs

    expected = predict(fitted.network, training_rows(fitted.prepared), range(50), unknown=True)
    np.testing.assert_allclose(teacher.score(inputs), expected, atol=1e-4)
