"""What the example pairs do not need: rows that judge the epochs, labels that are scaled, heads with few labels."""

import numpy as np
import onnxruntime
import pytest
import torch

from graft.fit import network as network_module
from graft.fit.design import DesignInput, Source, Split, TeacherDesign
from graft.fit.network import predict, train
from graft.fit.onnx_file import save_onnx

ROWS = 2_000


def _source(**changes: object) -> Source:
    random = np.random.default_rng(1)
    item, number = random.integers(20, size=ROWS), random.normal(size=ROWS).astype(np.float32)
    value = 40_000 + 9_000 * number + 2_000 * random.normal(size=ROWS)
    tables = {
        "rows.user": np.zeros(ROWS, np.int32),
        "rows.item": item,
        "rows.number": number,
        "items.item": np.arange(1, 21),
        "labels.like": (number + item / 20 > 0.5).astype(np.float32),
        "labels.spent": value.astype(np.float32),
    }
    design = TeacherDesign(
        inputs=[DesignInput(name="number", table="rows"), DesignInput(name="item", table="items", codes=21)],
        heads={"like": "binary", "spent": "regression"},
        **({"trunk": [8], "epochs": 6, "batch_rows": 128, "scale_labels": True} | changes),
    )
    return Source(design, tables)


def _nothing(*_: int) -> None:
    pass


def test_a_scaled_label_is_predicted_in_its_own_unit_also_by_the_file(tmp_path):
    source = _source()
    network = train(source, Split(1_600, 200), 1, _nothing).network
    spent_B = predict(network, source, range(1_800, ROWS))[:, 1]
    label_B = source.tables["labels.spent"][1_800:]
    assert np.mean((spent_B - label_B) ** 2) < 0.2 * np.var(label_B)
    save_onnx(network, tmp_path / "t.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "t.onnx", providers=["CPUExecutionProvider"])
    place = source.tables["rows.item"][1_800:]
    inputs = {"number": source.tables["rows.number"][1_800:], "item": source.tables["items.item"][place]}
    np.testing.assert_allclose(session.run(["spent"], inputs)[0], spent_B, rtol=1e-5)


def test_learning_ends_when_the_rows_that_judge_are_predicted_no_better():
    source = _source(epochs=40)
    noise = np.random.default_rng(2).integers(2, size=ROWS).astype(np.float32)
    source = source._replace(tables={**source.tables, "labels.like": noise, "labels.spent": 9 * noise})
    assert train(source, Split(1_600, 200), 1, _nothing).epochs < 20
    assert train(source, Split(1_600), 1, _nothing).epochs == 40


def test_the_weights_of_the_epoch_with_the_least_loss_are_kept(monkeypatch):
    losses, biases = iter((3.0, 2.0, 5.0, 4.0)), []

    def judged(network, *_):
        biases.append(network.heads.bias.tolist())
        return next(losses)

    monkeypatch.setattr(network_module, "_judged", judged)
    trained = train(_source(scale_labels=False), Split(1_600, 200), 1, _nothing)
    assert trained.epochs == len(biases) == 4
    assert trained.network.heads.bias.tolist() == biases[1]


def test_rows_that_judge_are_not_learnt():
    source = _source(epochs=1)
    turned = {**source.tables, "labels.like": source.tables["labels.like"].copy()}
    turned["labels.like"][1_600:] = 1 - turned["labels.like"][1_600:]
    networks = [train(s, Split(1_600, 200), 1, _nothing).network for s in (source, source._replace(tables=turned))]
    assert torch.equal(networks[0].heads.weight, networks[1].heads.weight)


@pytest.mark.parametrize("labels", [0, 3])
def test_a_head_with_hardly_a_label_does_not_spoil_the_others(labels):
    source = _source()
    few = np.full(ROWS, np.nan, np.float32)
    few[:labels] = [1, 2, 3][:labels]
    source = source._replace(tables={**source.tables, "labels.spent": few})
    network = train(source, Split(1_600, 200), 1, _nothing).network
    assert all(bool(weight.isfinite().all()) for weight in network.state_dict().values())
