"""Whole projects from logs that have nothing in common: what was taken, what was written, and that it is sound."""

import json
import random
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from graft.check import check_project
from graft.init.roles import Label
from graft.project import Project, load_project
from stream.join.validation import Validator
from stream.replay.dry_run import check_times, expect
from tests.graft.init.conftest import read_events, write_teacher

REDIS = "redis://localhost:6379/0"
NOW_MS = 1_790_000_000_000


def _movielens(folder: Path, ratings: int = 300) -> None:
    """Files in the form of MovieLens, as GroupLens publishes them, with ratings of our own."""
    draw = random.Random(5)
    genres = ["Action", "Children's", "Comedy", "Drama"]
    movies = ["movieId,title,genres"]
    movies += [f'{i},"Film {i}, The ({1950 + i})",{"|".join(sorted(draw.sample(genres, 2)))}' for i in range(1, 41)]
    movies.append("99,Nothing (1999),(no genres listed)")
    (folder / "movies.csv").write_text("\n".join(movies) + "\n")
    users = [
        f"{i},{draw.choice('FM')},{draw.randint(18, 70)},{draw.choice(['artist', 'writer'])}" for i in range(1, 21)
    ]
    (folder / "users.csv").write_text("userId,gender,age,occupation\n" + "\n".join(users) + "\n")
    rows = "".join(
        f"{draw.randint(1, 21)},{draw.randint(1, 40)},{draw.randint(1, 10) / 2},{964_982_703 + 60 * i}\n"
        for i in range(ratings)
    )
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{rows}")


def _is_sound(folder: Path) -> Project:
    """`graft check` finds nothing, and every event of the file is one that the stream takes."""
    from features.repo.store import check_spec  # noqa: PLC0415 - only these tests pay for Feast

    check_project(folder, REDIS)
    project = load_project(folder)
    spec = check_spec(project.repo, REDIS, project.features).spec
    assert spec is not None
    validator = Validator(spec, project.tasks)
    found = expect(folder / "events.parquet", validator, project.tasks, project.stream, NOW_MS)
    assert (found.dead_letters, found.duplicates, found.backward) == ({}, 0, 0)
    check_times(folder / "events.parquet", NOW_MS)
    return project


def test_movielens_files_and_a_teacher_become_a_sound_project_in_one_command(tmp_path, summary):
    _movielens(tmp_path)
    inputs: dict[str, tuple[str, list[Any]]] = {
        "user_id": ("int64", []),
        "movie_id": ("int64", []),
        "genres": ("float", [4]),
        "age": ("float", []),
        "gender": ("int64", []),
        "user_rating_mean": ("float", []),
        "wealth": ("float", []),
    }
    teacher = write_teacher(tmp_path / "sister.onnx", inputs, ["like", "rating"])
    tables = ["--users", tmp_path / "users.csv", "--items", tmp_path / "movies.csv"]
    said = summary("--events", tmp_path / "ratings.csv", *tables, "--teacher", teacher)
    assert said["columns"] == {"user": "userId", "item": "movieId", "time": "timestamp"}
    assert said["labels"] == ["liked = rating >= 4", "rating = rating"]
    assert said["teacher_inputs"] == {
        "user_id": None,
        "movie_id": "item_id",
        "genres": "item_profile:genres",
        "age": "user_profile:age",
        "gender": None,
        "user_rating_mean": "user_activity:mean_rating",
        "wealth": None,
    }
    assert said["faults"] == []
    project = _is_sound(tmp_path / "shop")
    assert {row.teacher_task: row.student_task for row in project.distillation} == {"like": "liked", "rating": "rating"}
    assert "item_profile:title" not in project.features.categorical, "it names its row"
    assert project.features.defaults["item_profile:genres"] == [0, 0, 0, 0]
    profile = pq.read_table(project.repo / "data" / "item_profile.parquet").to_pylist()
    assert profile[0]["event_timestamp"] == datetime.fromtimestamp(964_982_703, UTC)
    assert profile[-1] == profile[0] | {
        "item_id": 99,
        "title": "Nothing (1999)",
        "title_year": 1999,
        "genres": [0, 0, 0, 0],
    }
    assert profile[0]["title_year"] == 1950 + profile[0]["item_id"]
    assert "item_profile:title_year" in project.features.dense
    assert (project.folder / project.teacher.onnx).read_bytes() == teacher.read_bytes()
    assert any("users.csv: " in note and "that the table does not have" in note for note in said["notes"]), said
    with (tmp_path / "ratings.csv").open() as lines:
        first = lines.readlines()[1].strip().split(",")
    shown, *answers = read_events(project.folder)[:3]
    assert shown["type"] == "impression"
    assert [shown["user_id"], shown["item_id"], shown["event_time_ms"]] == [
        int(first[0]),
        int(first[1]),
        964_982_703_000,
    ]
    told = {answer["task"]: answer["value"] for answer in answers if answer["impression_id"] == "e000000000"}
    assert told == ({"liked": 1.0} if float(first[2]) >= 4 else {}) | {"rating": float(first[2])}


def test_a_log_of_positives_only_in_a_file_a_day_says_what_is_missing(tmp_path, summary):
    (tmp_path / "log").mkdir()
    for day in (3, 1, 2):
        rows = "".join(f"{user},{item}\n" for user in range(4) for item in range(day, 5))
        (tmp_path / "log" / f"orders-2024-01-0{day}.csv").write_text(f"customer,sku\n{rows}")
    teacher = write_teacher(tmp_path / "t.onnx", {"sku": ("int64", [])}, ["buy"])
    said = summary("--events", tmp_path / "log", "--teacher", teacher)
    assert said["columns"] == {"user": "customer", "item": "sku", "time": "(date in the file's name)"}
    assert said["labels"] == ["positive = 1"]
    (told,) = (point for point in said["only_you_know"] if "beside each of them 4 negatives are drawn" in point)
    assert "The first row of each item, 11% of the log, is not learnt" in told
    assert "drawn_negatives = 4 # guessed: every row is a yes" in (tmp_path / "shop/graft.toml").read_text("utf-8")
    assert load_project(tmp_path / "shop").sampling.drawn_negatives == 4
    assert any("every time is a midnight" in note for note in said["notes"])
    project = _is_sound(tmp_path / "shop")
    days = [event["event_time_ms"] for event in read_events(project.folder)]
    assert days == sorted(days)
    assert {datetime.fromtimestamp(ms / 1000, UTC).isoformat() for ms in days} == {
        f"2024-01-0{day}T00:00:00+00:00" for day in (1, 2, 3)
    }
    assert project.features.aggregates[0].columns == {"shown": "count"}, "a label that never changes is no aggregate"


def test_odd_string_ids_and_zones_in_times_stay_what_they_are(tmp_path, summary):
    users = ["Ann O'Hara", 'said "so"', "\u2603 \U0001f600", "x" * 200, " leading", "comma, here"]
    times = ["2024-03-10T10:00:00+02:00", "2024-03-10T08:00:01Z", "2024-03-10 08:00:02", "2024-03-10T03:00:03.5-05:00"]
    rows = [
        {"member": user, "title": f"it\u00e9m {i % 3}", "when": times[i % 4], "clicked": ["yes", "no"][i % 2]}
        for i, user in enumerate(users)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    teacher = write_teacher(tmp_path / "t.onnx", {"member": ("string", []), "title_name": ("string", [])}, ["click"])
    said = summary("--events", tmp_path / "log.jsonl", "--teacher", teacher)
    assert said["columns"] == {"user": "member", "item": "title", "time": "when"}
    project = _is_sound(tmp_path / "shop")
    shown = [event for event in read_events(project.folder) if event["type"] == "impression"]
    assert sorted(event["user_id"] for event in shown) == sorted(users)
    at = {event["user_id"]: event["event_time_ms"] - 1_710_057_600_000 for event in shown}
    assert [at[user] for user in users] == [0, 1_000, 2_000, 3_500, 0, 1_000]


def test_five_tasks_with_two_regressions_and_no_item_table(tmp_path, summary):
    head = "session_user,video,event_time,clicked,liked,shared,watch_seconds,stars,device,note\n"
    rows = "".join(
        f"u{i % 5},{i % 7},{1_700_000_000_000 + i * 1000},{i % 2},{int(i % 3 == 0)},{int(i % 11 == 0)},"
        f"{i * 1.5},{i % 5 + 1 if i % 2 else ''},{['tv', 'phone'][i % 2]},free text {i}\n"
        for i in range(60)
    )
    (tmp_path / "log.csv").write_text(head + rows)
    (tmp_path / "people.csv").write_text(
        "id,age,member since\n" + "".join(f"u{i},3{i},2020-0{i + 1}-01\n" for i in range(5))
    )
    teacher = write_teacher(tmp_path / "t.onnx", {"device": ("string", [])}, ["click", "watch_seconds", "embedding"])
    log = ["--events", tmp_path / "log.csv", "--users", tmp_path / "people.csv", "--teacher", teacher]
    said = summary(*log)
    project = _is_sound(tmp_path / "shop")
    kinds = {task.name: task.kind for task in project.tasks}
    assert kinds == {
        "clicked": "binary",
        "liked": "binary",
        "shared": "binary",
        "watch_seconds": "regression",
        "stars": "regression",
    }
    assert said["context"] == ["device"]
    assert said["unused"] == ["note"]
    assert "user_profile:member_since" in project.features.dense
    assert {row.teacher_task: row.student_task for row in project.distillation} == {
        "click": "clicked",
        "watch_seconds": "watch_seconds",
    }
    told = [event for event in read_events(project.folder) if event.get("task") == "stars"]
    assert len(told) == 30, "a row without stars has no label"


def test_the_file_has_every_key_with_its_meaning_and_marks_guesses(tmp_path, init):
    _movielens(tmp_path, 20)
    assert init("--events", tmp_path / "ratings.csv", "--yes").exit_code == 0
    text = (tmp_path / "shop" / "graft.toml").read_text()
    missing = [
        (model.__name__, name)
        for model in _models(Project)
        if not model.__name__.endswith("Input")
        for name, field in model.model_fields.items()
        if field.description and not field.exclude and f"{name} =" not in text and f"# {name}:" not in text
    ]
    assert [
        m for m in missing if m[0] not in ("ContextFeature", "TeacherTask", "TeacherVector", "DistillationConfig")
    ] == [("FeaturesConfig", "defaults")]
    assert "window_seconds = 10 # guessed: " in text
    tomllib.loads(text)
    tomllib.loads("\n".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# partitions")))


def _models(model: Any) -> list[Any]:
    import typing  # noqa: PLC0415

    found = [model]
    for field in model.model_fields.values():
        todo = [field.annotation]
        while todo:
            part = todo.pop()
            if isinstance(part, type) and hasattr(part, "model_fields"):
                found += [m for m in _models(part) if m not in found]
            todo += typing.get_args(part)
    return found


def test_without_a_teacher_the_output_says_what_to_bring(tmp_path, summary):
    _movielens(tmp_path, 20)
    said = summary("--events", tmp_path / "ratings.csv")
    assert any(point.startswith("where the teacher is: graft.toml has none, so") for point in said["only_you_know"])
    assert said["impressions"] == 20
    assert said["faults"] == []
    assert any("'graft student bootstrap' takes their ids with --events" in note for note in said["notes"])


@pytest.mark.parametrize("there", ["graft.toml", "feature_repo/definitions.py", "events.parquet"])
def test_nothing_is_overwritten(tmp_path, init, there):
    _movielens(tmp_path, 20)
    path = tmp_path / "shop" / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    result = init("--events", tmp_path / "ratings.csv", "--yes")
    assert result.exit_code == 1
    assert "is there already and is not overwritten; name a new folder" in result.output
    assert [p.name for p in (tmp_path / "shop").rglob("*") if p.is_file()] == [path.name]
    assert path.read_text() == "mine"


def test_the_log_and_the_teacher_may_lie_in_the_folder_and_stay(tmp_path, summary):
    (tmp_path / "shop").mkdir()
    _movielens(tmp_path / "shop", 20)
    teacher = write_teacher(tmp_path / "shop" / "big.onnx", {"age": ("double", [1])}, ["like"])
    said = summary("--events", tmp_path / "shop" / "ratings.csv", "--teacher", teacher)
    assert said["faults"] == []
    assert str(load_project(tmp_path / "shop").teacher.onnx) == "big.onnx"
    assert (tmp_path / "shop" / "ratings.csv").exists()
    assert not list((tmp_path / "shop").glob(".arriving-*"))


def test_a_given_label_and_given_columns_take_the_place_of_guesses(tmp_path, summary):
    rows = "".join(f"{i},{i % 3},{1_700_000_000 + i},{i % 5},shop{i % 2}\n" for i in range(10))
    (tmp_path / "log.csv").write_text(f"a,b,c,d,e\n{rows}")
    given = ["--map", "user=a", "--map", "item=b", "--map", "time=c", "--map", "context=e", "--label", "good = d >= 3"]
    said = summary("--events", tmp_path / "log.csv", *given)
    assert said["labels"] == [str(Label("good", "binary", "d", ">=", 3.0))] == ["good = d >= 3"]
    assert said["context"] == ["e"]
    events = read_events(tmp_path / "shop")
    assert sum(event["type"] == "feedback" for event in events) == 4
    assert events[0]["context"] == {"e": "shop0"}


def test_a_terminal_is_asked_what_cannot_be_decided_and_before_writing(tmp_path, init, monkeypatch):
    (tmp_path / "log.csv").write_text("buyer_id,member_id,sku,ts\n1,2,3,1700000000\n4,5,6,1700000001\n")
    monkeypatch.setattr("graft.commands.init.is_terminal", lambda: True)
    result = init("--events", tmp_path / "log.csv", answers="member_id\n\nn\n")
    assert "which column is the user? buyer_id and member_id fit alike" in result.output
    assert "Write this?" in result.output
    assert result.exit_code == 1
    assert not (tmp_path / "shop").exists()
    assert init("--events", tmp_path / "log.csv", answers="member_id\n\n\n").exit_code == 0
    assert read_events(tmp_path / "shop")[0]["user_id"] == 2


PURCHASES = "customer,sku,bought_at\n" + "".join(f"{i},{i % 3},{1_700_000_000 + i}\n" for i in range(9))


@pytest.mark.parametrize("count", [1, 12])
def test_the_number_of_drawn_negatives_may_be_given(tmp_path, summary, count):
    (tmp_path / "log.csv").write_text(PURCHASES)
    said = summary("--events", tmp_path / "log.csv", "--negatives", str(count))
    assert load_project(tmp_path / "shop").sampling.drawn_negatives == count
    lines = [line for line in (tmp_path / "shop/graft.toml").read_text("utf-8").splitlines() if "drawn_neg" in line]
    assert lines == [f"drawn_negatives = {count}"], "what was said is no guess"
    assert any(f"beside each of them {count} negatives are drawn" in point for point in said["only_you_know"])
    _is_sound(tmp_path / "shop")


def test_without_drawn_negatives_it_is_said_that_nothing_can_be_learnt(tmp_path, summary):
    (tmp_path / "log.csv").write_text(PURCHASES)
    said = summary("--events", tmp_path / "log.csv", "--negatives", "0")
    assert load_project(tmp_path / "shop").sampling.drawn_negatives == 0
    assert not any("negatives are drawn" in point for point in said["only_you_know"])
    assert any("every row says yes, so nothing can be learnt of it" in point for point in said["only_you_know"])


@pytest.mark.parametrize(("answer", "drawn"), [("", 4), ("7", 7), ("51\n0", 0)])
def test_a_terminal_is_asked_for_the_number_of_drawn_negatives(tmp_path, init, monkeypatch, answer, drawn):
    (tmp_path / "log.csv").write_text(PURCHASES)
    monkeypatch.setattr("graft.commands.init.is_terminal", lambda: True)
    result = init("--events", tmp_path / "log.csv", answers=f"{answer}\n\n")
    assert "Every row is a yes. Negatives to draw beside each, 0 for none [4]" in result.output
    assert load_project(tmp_path / "shop").sampling.drawn_negatives == drawn


def test_a_log_with_negatives_of_its_own_draws_none(tmp_path, init):
    _movielens(tmp_path, 20)
    result = init("--events", tmp_path / "ratings.csv", "--yes", "--negatives", "3")
    assert result.exit_code == 1
    assert "--negatives: the log has rows that are no yes, which are its negatives" in result.output
    assert not (tmp_path / "shop").exists()


def test_without_a_terminal_and_without_yes_nothing_is_written(tmp_path, init):
    _movielens(tmp_path, 20)
    result = init("--events", tmp_path / "ratings.csv")
    assert "nothing was written: no terminal to ask on; take what stands above with --yes" in result.output
    assert result.exit_code == 1
    assert not (tmp_path / "shop").exists()


def test_a_probability_where_a_logit_belongs_is_told_by_init_and_by_check(tmp_path, summary):
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper  # noqa: PLC0415

    _movielens(tmp_path, 60)
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Mul", ["age", "slope"], ["scaled"]),
        helper.make_node("Sigmoid", ["scaled"], ["like"]),
    ]
    given, made = value("age", TensorProto.FLOAT, ["B"]), value("like", TensorProto.FLOAT, ["B"])
    slope = helper.make_tensor("slope", TensorProto.FLOAT, [], [0.02])
    graph = helper.make_graph(nodes, "t", [given], [made], [slope])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "sister.onnx")
    files = ["--events", tmp_path / "ratings.csv", "--users", tmp_path / "users.csv"]
    said = summary(*files, "--teacher", tmp_path / "sister.onnx")
    told = [point for point in said["only_you_know"] if point.startswith("whether the teacher gives logits: ")]
    assert len(told) == 1
    assert "on 256 rows, which looks like a probability" in told[0]
    checked = check_project(tmp_path / "shop", REDIS)
    assert [warning.partition(" is from ")[0] for warning in checked.warnings] == ["teacher task like: its output like"]
    assert any(line.startswith("  warning: teacher task like") for line in checked.lines())
