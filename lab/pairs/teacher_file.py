"""From a project's source rows to its teacher.onnx."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graft.fit.design import Source, Split
from graft.fit.network import Progress, TeacherNetwork, predict, train
from graft.fit.onnx_file import save_onnx
from lab.pairs.project_folder import load_source
from runtime.folder import replacing
from student.evaluate.metrics import exact_auc

_HELD_OUT = 0.05  # the latest rows, never learnt


class TeacherReport(NamedTuple):
    """How a teacher does on the latest source rows, which it did not learn; AUC per binary head.

    An AUC is None where the head's labels are all of one class.
    """

    learnt_rows: int
    held_out_rows: int
    auc: dict[str, float | None]
    auc_of_unknown_users: dict[str, float | None]


def train_teacher(source: Source, seed: int, progress: Progress) -> tuple[TeacherNetwork, TeacherReport]:
    """A network trained on all but the latest 5 % of the rows, and its report on those."""
    learnt = source.rows - int(source.rows * _HELD_OUT)
    network = train(source, Split(learnt), seed, progress).network
    held_out = range(learnt, source.rows)
    aucs = [
        _auc_per_head(source, held_out, predict(network, source, held_out, unknown=unknown))
        for unknown in (False, True)
    ]
    return network, TeacherReport(learnt, len(held_out), *aucs)


def _auc_per_head(source: Source, rows: range, output_BT: NDArray[np.float32]) -> dict[str, float | None]:
    return {
        head: exact_auc(source.tables[f"labels.{head}"][rows.start : rows.stop].astype(np.float32), output_BT[:, t])
        for t, (head, kind) in enumerate(source.design.heads.items())
        if kind == "binary"
    }


def write_teacher(folder: Path, seed: int, progress: Progress) -> TeacherReport:
    """Train on `folder`/source; write teacher.onnx and teacher_report.json, each whole in place of an earlier one.

    InvalidInputError when the folder has no source rows, GraftError when the disk refuses.
    """
    network, report = train_teacher(load_source(folder), seed, progress)
    save_onnx(network, folder / "teacher.onnx")
    with replacing(folder / "teacher_report.json") as file:
        file.write(json.dumps(report._asdict(), indent=2).encode() + b"\n")
    return report
