import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from features.repo.store import compile_spec
from features.spec import FeatureSpec
from graft.project import load_project
from lab.pairs.command import pair
from lab.pairs.project_folder import load_source
from lab.pairs.simulated import STYLES, Sizes, write_simulated
from student.evaluate.metrics import exact_auc
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.kinds.load import load_teacher

SMALL = Sizes(events=400, users=30, items=24, source_rows=3_000, source_users=50, source_items=40)
FIXTURE = Path(__file__).parents[3] / "fixtures" / "simulated"
FIXTURE_SIZES = Sizes(events=3_000, users=150, items=120)  # as in fixtures/README.md


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    write_simulated(folder, SMALL, seed=5)
    return folder


def _events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]


def _table(folder: Path, view: str) -> list[dict]:
    return pq.read_table(folder / "feature_repo" / "data" / f"{view}.parquet").to_pylist()


def test_the_same_seed_writes_the_same_pair_and_another_seed_another(small, tmp_path):
    write_simulated(tmp_path / "again", SMALL, seed=5)
    write_simulated(tmp_path / "other", SMALL, seed=6)
    assert (tmp_path / "again" / "events.jsonl").read_bytes() == (small / "events.jsonl").read_bytes()
    assert (tmp_path / "other" / "events.jsonl").read_bytes() != (small / "events.jsonl").read_bytes()
    for view in ("listener", "track"):
        assert _table(tmp_path / "again", view) == _table(small, view)
    ours, again = load_source(small), load_source(tmp_path / "again")
    for name, table in ours.tables.items():
        np.testing.assert_array_equal(table, again.tables[name], err_msg=name)


def test_every_impression_is_shown_once_in_time_order_and_answered_within_the_windows(small):
    lines = _events(small)
    times = [e["event_time_ms"] for e in lines]
    assert times == sorted(times)
    shown = {e["impression_id"]: e["event_time_ms"] for e in lines if e["type"] == "impression"}
    assert len(shown) == SMALL.events == sum(e["type"] == "impression" for e in lines)
    window_ms = min(task.window_seconds for task in load_project(small).tasks) * 1000
    answers = [e for e in lines if e["type"] == "feedback"]
    assert all(0 <= e["event_time_ms"] - shown[e["impression_id"]] < window_ms for e in answers)
    # A dwell comes with each click and never without.
    clicked, stayed = ({e["impression_id"] for e in answers if e["task"] == task} for task in ("click", "dwell"))
    assert clicked == stayed
    assert 0 < len(clicked) < SMALL.events


def test_users_have_string_ids_and_items_integers_and_all_of_them_a_profile(small):
    impressions = [e for e in _events(small) if e["type"] == "impression"]
    users = {row["user_id"] for row in _table(small, "listener")}
    items = {row["item_id"] for row in _table(small, "track")}
    assert {e["user_id"] for e in impressions} <= users
    assert {e["item_id"] for e in impressions} <= items
    assert all(isinstance(user, str) for user in users)
    assert all(isinstance(item, int) for item in items)


def test_new_tracks_come_out_while_the_stream_runs(small):
    shown = [e["item_id"] for e in _events(small) if e["type"] == "impression"]
    assert max(shown[:50]) < max(shown)


def test_a_track_and_its_clip_are_the_same_work_in_both_domains(small):
    tables = load_source(small).tables
    style_codes = load_project(small).teacher.inputs["style_code"].table
    with_clip = [track for track in _table(small, "track") if track["clip"]]
    assert len(with_clip) == 2 * SMALL.items // 3
    for track in with_clip:
        clip = track["clip"] - 1
        assert tables["items.clip_code"][clip] == track["clip"]
        assert tables["items.style_code"][clip] == style_codes[track["style"]]
        assert tables["items.sound"][clip].tolist() == pytest.approx(track["sound"])
        assert tables["items.beats_per_second"][clip] == pytest.approx(track["tempo"] / 60)


def test_a_viewers_history_ends_before_the_row(small):
    tables = load_source(small).tables
    user, plays = tables["rows.user"], tables["labels.play"]
    for row in (0, 1_000, len(user) - 1):
        earlier = np.flatnonzero(user[:row] == user[row])
        assert tables["rows.viewer_views"][row] == len(earlier)
        expected = plays[earlier].mean() if len(earlier) else 0.5
        assert tables["rows.viewer_play_share"][row] == pytest.approx(expected)


def test_a_task_of_one_class_alone_has_no_best_auc(tmp_path):
    write_simulated(tmp_path / "one", Sizes(events=1), seed=1)
    assert json.loads((tmp_path / "one" / "truth.json").read_text("utf-8")) == {"best_auc": {}}


def test_the_command_says_what_it_wrote(tmp_path):
    words = ["make", "simulated", str(tmp_path / "a"), "--events", "50", "--users", "9", "--items", "8", "--json"]
    done = CliRunner().invoke(pair, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"folder": str(tmp_path / "a"), "impressions": 50}
    assert len({e["user_id"] for e in _events(tmp_path / "a") if e["type"] == "impression"}) <= 9


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fixture")
    write_simulated(folder, FIXTURE_SIZES, seed=7)
    return folder


def test_the_fixture_is_what_its_command_writes(regenerated):
    for name in ("events.jsonl", "graft.toml", "truth.json", "feature_repo/definitions.py"):
        assert (FIXTURE / name).read_bytes() == (regenerated / name).read_bytes(), name
    for view in ("listener", "track"):
        assert _table(FIXTURE, view) == _table(regenerated, view)


def test_the_fixtures_teacher_is_as_designed_and_ranks_the_targets_clicks_through_the_domain_map(regenerated):
    project, design = load_project(FIXTURE), load_source(regenerated).design
    spec = compile_spec(project.repo, "redis://localhost:6379/0", project.features)
    teacher = load_teacher(project.teacher, FIXTURE)
    assert {name: tensor.width for name, tensor in teacher.inputs.items()} == {i.name: i.width for i in design.inputs}
    assert {task.output: task.kind for task in project.teacher.tasks} == design.heads
    mapped = DomainMap(project.teacher, FIXTURE, teacher, spec)
    impressions = [e for e in _events(FIXTURE) if e["type"] == "impression"]
    rows = mapped.map_rows(_columns(spec, FIXTURE, impressions))
    clicks = {e["impression_id"] for e in _events(FIXTURE) if e["type"] == "feedback" and e["task"] == "click"}
    label = np.array([e["impression_id"] in clicks for e in impressions], np.float32)
    reached = exact_auc(label, teacher.score(rows.inputs)[:, 0])
    best = json.loads((FIXTURE / "truth.json").read_text("utf-8"))["best_auc"]["click"]
    assert 0.7 < reached < best
    assert mapped.defaulted_share == pytest.approx(0.3)
    assert rows.fallback_shares.max() == 0


def _columns(spec: FeatureSpec, folder: Path, impressions: list[dict]) -> dict:
    """The spec's features of each impression: profiles from the batch tables, nothing pushed yet."""
    columns = {}
    for f in spec.features:
        if f.source in ("user", "item"):
            key = f"{f.source}_id"
            is_pushed = f.view.endswith(("_activity", "_teacher"))
            rows = {} if is_pushed else {row[key]: row for row in _table(folder, f.view)}
            columns[f.name] = [rows.get(e[key], {}).get(f.feature) for e in impressions]
        elif f.source == "context":
            columns[f.name] = [e["context"][f.name.removeprefix("context:")] for e in impressions]
        else:
            columns[f.name] = [e[f.source] for e in impressions]
    return columns


def test_the_styles_of_the_template_are_those_of_the_world(small):
    assert list(load_project(small).teacher.inputs["style_code"].table) == list(STYLES)


def test_a_source_has_a_label_of_each_head_for_each_row(small):
    source = load_source(small)
    for head in source.design.heads:
        assert len(source.tables[f"labels.{head}"]) == SMALL.source_rows
    assert not np.isnan(source.tables["labels.play"]).any()
    assert np.isnan(source.tables["labels.watch"]).any()  # nobody watches what they did not play
