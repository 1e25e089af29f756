"""From a project's source rows to its teacher.onnx."""

import json
from pathlib import Path

from graft.pairs.onnx_export import save_onnx
from graft.pairs.source import load_source
from graft.pairs.teacher_training import Progress, TeacherReport, train_teacher

TEACHER = "teacher.onnx"
_REPORT = "teacher_report.json"


def write_teacher(folder: Path, seed: int, progress: Progress) -> TeacherReport:
    """Train on `folder`/source and write teacher.onnx and teacher_report.json beside it.

    InvalidInputError when the folder has no source rows. A teacher there is replaced at once, as a whole.
    """
    network, report = train_teacher(load_source(folder), seed, progress)
    save_onnx(network, folder / TEACHER)
    (folder / _REPORT).write_text(json.dumps(report._asdict(), indent=2) + "\n", encoding="utf-8")
    return report
