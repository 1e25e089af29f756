"""From a project's source rows to its teacher.onnx."""

import json
from pathlib import Path

from lab.pairs.source import load_source
from lab.pairs.teacher_training import TeacherReport, train_teacher
from runtime.folder import replacing
from teacher_cache.fit.onnx_file import save_onnx
from teacher_cache.fit.training import Progress

TEACHER = "teacher.onnx"


def write_teacher(
    folder: Path, seed: int, progress: Progress, *, share: float = 1.0, name: str = TEACHER
) -> TeacherReport:
    """Train on the oldest `share` of `folder`/source, and write `name` and its report (teacher_report.json) beside it.

    Each file takes the place of an earlier one whole. InvalidInputError when the folder has no source rows, GraftError
    when the disk refuses.
    """
    network, report = train_teacher(load_source(folder).oldest(share), seed, progress)
    save_onnx(network, folder / name)
    with replacing(folder / f"{Path(name).stem}_report.json") as file:
        file.write(json.dumps(report._asdict(), indent=2).encode() + b"\n")
    return report
