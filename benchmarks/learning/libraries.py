"""River and Vowpal Wabbit: one binary task, one row at a time."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.learning.rows import Bench, Measured, Spent, now, since
from student.evaluate.metrics import exact_auc


class Rows:
    """The encoded features of every example that has a label of the task, one row each."""

    def __init__(self, bench: Bench) -> None:
        spec = bench.setup.spec
        labelled = [r.example for r in bench.records if r.example.labels[bench.task] is not None]
        encoded = spec.encode(spec.columns_of([example.features for example in labelled]))
        self.labels = [bool(example.labels[bench.task]) for example in labelled]
        self.dense = [dict(zip(spec.dense_names, row, strict=True)) for row in encoded.dense_BD.tolist()]
        self.categories = [[f"{c}={h}" for c, h in enumerate(row)] for row in encoded.categorical_BC.tolist()]

    def measured(self, spent: Spent, scores: Iterable[float]) -> Measured:
        """The measurement, with the AUC of the scores, one for each row."""
        label_N, score_N = np.array(self.labels, np.float32), np.fromiter(scores, np.float32)
        return Measured(spent, len(self.labels), {"": exact_auc(label_N, score_N)})


def river_regression(rows: Rows) -> Measured:
    """Dense features scaled by their running moments, categories one-hot; Adagrad, which does better than its SGD."""
    from river import linear_model, optim, preprocessing  # noqa: PLC0415 of the group `bench`

    scaler = preprocessing.StandardScaler()
    model = linear_model.LogisticRegression(optim.AdaGrad(0.05))
    scores = []
    began = now()
    for dense, categories, label in zip(rows.dense, rows.categories, rows.labels, strict=True):
        scaler.learn_one(dense)
        features = {**scaler.transform_one(dense), **dict.fromkeys(categories, 1.0)}
        scores.append(model.predict_proba_one(features).get(True, 0.5))
        model.learn_one(features, label)
    return rows.measured(since(began), scores)


def vowpal_wabbit(rows: Rows, folder: Path) -> Measured:
    """VW's own reader and learner: every row is predicted, then learnt; its defaults but for the loss."""
    from vowpalwabbit import Workspace  # noqa: PLC0415 of the group `bench`

    data, predictions = folder / "rows.vw", folder / "predictions"
    if not data.exists():
        data.write_text("".join(vw_lines(rows)))
    began = now()
    Workspace(f"--quiet --loss_function logistic -b 20 -d {data} -p {predictions}").finish()
    return rows.measured(since(began), map(float, predictions.read_text().split()))


def vw_lines(rows: Rows) -> Iterator[str]:
    for dense, categories, label in zip(rows.dense, rows.categories, rows.labels, strict=True):
        numbers = " ".join(f"{i}:{value:.7g}" for i, value in enumerate(dense.values()))
        yield f"{1 if label else -1} |d {numbers} |c {' '.join(categories)}\n"
