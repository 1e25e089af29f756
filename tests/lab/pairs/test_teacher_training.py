import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from graft.fit.design import DesignInput, DesignTaste, Source, TeacherDesign
from graft.fit.onnx_file import save_onnx
from lab.pairs.command import pair
from lab.pairs.project_folder import load_source, save_source
from lab.pairs.teacher_file import train_teacher, write_teacher
from runtime.errors import InvalidInputError

ROWS, USERS, ITEMS = 4_000, 40, 30

DESIGN = TeacherDesign(
    inputs=[
        DesignInput(name="viewer", table="users", codes=USERS + 1, history=True),
        DesignInput(name="views", table="rows", logarithm=True, history=True),
        DesignInput(name="video", table="items", codes=ITEMS + 1),
        DesignInput(name="topics", table="items", width=3),
    ],
    heads={"watch": "binary", "seconds": "regression"},
    trunk=[16],
    embedding_dim=4,
    epochs=8,
    batch_rows=256,
)


@pytest.fixture(scope="module")
def source() -> Source:
    """Viewers and videos with a taste each: `watch` follows their sum."""
    random = np.random.default_rng(1)
    taste, appeal = random.normal(size=USERS), random.normal(size=ITEMS)
    user, item = random.integers(USERS, size=ROWS), random.integers(ITEMS, size=ROWS)
    truth = taste[user] + appeal[item]
    tables = {
        "rows.user": user,
        "rows.item": item,
        "rows.views": random.poisson(20, ROWS).astype(np.float32),
        "users.viewer": np.arange(1, USERS + 1),
        "items.video": np.arange(1, ITEMS + 1),
        "items.topics": random.random((ITEMS, 3), np.float32),
        "labels.watch": (random.random(ROWS) < 1 / (1 + np.exp(-2 * truth))).astype(np.float32),
        "labels.seconds": truth.astype(np.float32),
    }
    return Source(DESIGN, tables)


@pytest.fixture(scope="module")
def trained(source):
    steps: list[tuple[int, int]] = []
    network, report = train_teacher(source, 3, lambda *at: steps.append(at))
    assert steps[-1] == (len(steps), len(steps))
    return network, report


@pytest.fixture(scope="module")
def tasted(source):
    """A teacher with item vectors, of viewers who watch what is to their taste."""
    random = np.random.default_rng(4)
    taste, kind = random.normal(size=(USERS, 2)), random.normal(size=(ITEMS, 2))
    truth = (taste[source.tables["rows.user"]] * kind[source.tables["rows.item"]]).sum(1)
    tables = {
        **source.tables,
        "labels.watch": (random.random(ROWS) < 1 / (1 + np.exp(-2 * truth))).astype(np.float32),
        "labels.seconds": truth.astype(np.float32),
    }
    taste = DesignTaste(user="viewer", item="video", output="own", width=2)
    design = DESIGN.model_copy(update={"taste": taste, "epochs": 30})
    return train_teacher(Source(design, tables), 3, lambda *_: None)


def _inputs(rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    return {
        "viewer": random.integers(USERS + 1, size=rows),
        "views": random.random(rows, np.float32) * 100,
        "video": random.integers(ITEMS + 1, size=rows),
        "topics": random.random((rows, 3), np.float32),
    }


def test_a_known_user_is_scored_better_than_an_unknown_one_and_both_better_than_chance(trained):
    report = trained[1]
    assert report.held_out_rows == 200
    assert 0.6 < report.auc_of_unknown_users["watch"] < report.auc["watch"] < 1


def test_the_same_seed_makes_the_same_weights(source, trained):
    again, _ = train_teacher(source, 3, lambda *_: None)
    for name, weight in trained[0].state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


def test_the_held_out_rows_are_never_learnt(source, trained):
    held_out = ROWS - trained[1].held_out_rows
    turned = dict(source.tables)
    for name in ("labels.watch", "labels.seconds"):
        turned[name] = source.tables[name].copy()
        turned[name][held_out:] = -turned[name][held_out:]
    again, _ = train_teacher(Source(DESIGN, turned), 3, lambda *_: None)
    assert torch.equal(trained[0].heads.weight, again.heads.weight)


def _session(network, folder: Path) -> onnxruntime.InferenceSession:
    save_onnx(network, folder / "teacher.onnx")
    return onnxruntime.InferenceSession(folder / "teacher.onnx", providers=["CPUExecutionProvider"])


def _said(network, inputs: dict[str, np.ndarray]) -> np.ndarray:
    with torch.inference_mode():
        return network({name: torch.from_numpy(values) for name, values in inputs.items()}).numpy()


def test_the_onnx_file_gives_what_the_network_gives_for_any_number_of_rows(trained, tmp_path):
    session = _session(trained[0], tmp_path)
    for rows in (1, 7, 100):
        watch_B, seconds_B = session.run(["watch", "seconds"], inputs := _inputs(rows))
        assert watch_B.shape == seconds_B.shape == (rows,)
        np.testing.assert_allclose(np.stack([watch_B, seconds_B], 1), _said(trained[0], inputs), rtol=0, atol=1e-5)
    # A code outside of its table is the unknown one.
    outside, unknown = _inputs(3), _inputs(3)
    outside["video"] = np.array([-1, ITEMS + 1, 2**62])
    unknown["video"] = np.zeros(3, np.int64)
    np.testing.assert_array_equal(session.run(["watch"], outside)[0], session.run(["watch"], unknown)[0])


def test_an_items_vector_is_an_output_and_tells_whose_taste_it_meets(tasted, tmp_path):
    network, report = tasted
    inputs = _inputs(50)
    watch_B, vector_BW = _session(network, tmp_path).run(["watch", "own"], inputs)
    np.testing.assert_allclose(watch_B, _said(network, inputs)[:, 0], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(vector_BW, network.taste.items.weight.detach().numpy()[inputs["video"]])
    assert report.auc["watch"] > report.auc_of_unknown_users["watch"] + 0.1, "no sum of a user's and an item's tells"
    # Users vary alike along the axes of the vectors, and an unknown one has none.
    users_UW = network.taste.users.weight.detach().numpy()
    assert not users_UW[0].any()
    np.testing.assert_allclose(np.cov(users_UW[1:].T), np.eye(2), atol=1e-2)


def test_the_file_of_one_network_has_always_the_same_bytes(trained, tmp_path):
    save_onnx(trained[0], tmp_path / "a.onnx")
    save_onnx(trained[0], tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert [i.name for i in onnx.load(tmp_path / "a.onnx").graph.input] == [i.name for i in DESIGN.inputs]


def test_a_source_comes_back_as_it_was_saved(source, tmp_path):
    save_source(source, tmp_path)
    again = load_source(tmp_path)
    assert again.design == source.design
    for name, table in source.tables.items():
        np.testing.assert_array_equal(again.tables[name], table)


def test_a_folder_without_source_rows_says_how_to_get_them(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="no rows to train a teacher on; write the pair with 'graft pair make'"):
        write_teacher(tmp_path, 1, lambda *_: None)


def test_the_command_writes_teacher_and_report_for_each_folder_and_no_auc_of_one_class(source, tmp_path):
    positive = {**source.tables, "labels.watch": np.ones(source.rows, np.float32)}
    folders = {tmp_path / "one": source, tmp_path / "two": source._replace(tables=positive)}
    for folder, rows in folders.items():
        save_source(rows, folder)
    done = CliRunner().invoke(pair, ["train-teacher", *map(str, folders)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split(": AUC on 200 later source rows")[0] for line in lines] == [*map(str, folders)]
    assert "watch undefined" not in lines[0]
    assert "watch undefined" in lines[1]
    one, two = (json.loads((folder / "teacher_report.json").read_text("utf-8")) for folder in folders)
    assert (one["held_out_rows"], two["auc"]["watch"]) == (200, None)
    assert all((folder / "teacher.onnx").exists() for folder in folders)
