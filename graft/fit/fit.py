"""Trains the teacher that was prepared, and tells how well it does on rows that it has not seen.

Shapes: N rows of the source's log in time order, B of them held out, T heads.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from graft.fit.prepare import SOURCE_USER, Prepared, codes_file, labels_of, user_codes
from graft.fit.report import FitReport, report_of
from graft.init.plan import TEACHER
from runtime.folder import replacing
from teacher_cache.fit.network import TeacherNetwork
from teacher_cache.fit.onnx_file import save_onnx
from teacher_cache.fit.source import DesignInput, Source, TeacherDesign
from teacher_cache.fit.training import Progress, predict, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT_SEED = 7

_EPOCHS = 10
_EMBEDDING_DIM = 16
_BATCHES = 100  # of an epoch, where that gives batches of a size within _BATCH_ROWS
_BATCH_ROWS = (32, 4_096)


class Fitted(NamedTuple):
    """A trained teacher, and how well it does."""

    prepared: Prepared
    network: TeacherNetwork
    report: FitReport

    def write(self, folder: Path, file: str = TEACHER) -> None:
        """Write the ONNX file into the project folder, and beside it the codes of what its inputs take."""
        save_onnx(self.network, folder / file)
        for one in self.prepared.shared:
            if one.codes:
                with replacing(folder / codes_file(one, file)) as codes:
                    codes.write(json.dumps(one.codes, ensure_ascii=False, indent=0).encode())


def fit(prepared: Prepared, seed: int, progress: Progress) -> Fitted:
    """Train the teacher. Same log, same seed, same file."""
    started = time.monotonic()
    source, split = rows_to_learn(prepared), prepared.split
    trained = train(source, split, seed, progress)
    held_out = range(split.used, source.rows)
    output_BT = predict(trained.network, source, held_out, unknown=True)  # as the target asks: of users it never saw
    report = report_of(source, split, output_BT, trained.epochs, time.monotonic() - started)
    return Fitted(prepared, trained.network, report._replace(warnings=[*prepared.warnings, *report.warnings]))


def rows_to_learn(prepared: Prepared) -> Source:
    """The design of the teacher, and the rows of the source as it takes them."""
    log = prepared.source
    kinds = {label.name: label.kind for label in log.labels}
    rows = log.log.rows.num_rows
    least, most = _BATCH_ROWS
    code_U = user_codes(prepared)
    users = DesignInput(name=SOURCE_USER, table="users", codes=int(code_U.max()) + 1, history=True)
    design = TeacherDesign(
        inputs=[*([users] if prepared.taste else []), *(one.input for one in prepared.shared)],
        heads={head: kinds[label] for head, label in prepared.heads.items()},
        taste=prepared.taste,
        embedding_dim=_EMBEDDING_DIM,
        epochs=_EPOCHS,
        batch_rows=min(most, max(least, rows // _BATCHES)),
        scale_labels=True,
    )
    tables: dict[str, NDArray[Any]] = {"rows.user": log.ids["user"].place_N, "rows.item": log.ids["item"].place_N}
    tables |= {f"{one.input.table}.{one.input.name}": one.values for one in prepared.shared}
    tables[f"users.{SOURCE_USER}"] = code_U
    for head, label in prepared.heads.items():
        tables[f"labels.{head}"] = labels_of(log, label, kinds[label])
    return Source(design, tables)
