"""The keys of all that a study keeps, so that another start finds what is finished.

A key is a digest of everything that the kept thing depends on, **except the code**: finished cells stay usable when
graft changes, as most changes leave their results alone. After a change that affects results, name another OUT.
"""

import json
from typing import Any

from lab.study.day_zero import DayZero
from lab.study.digest import digest_of
from lab.study.plan import Cell
from lab.study.study_log import StudyLog
from lab.study.teachers import changed_config, teacher_files
from runtime.errors import ConfigurationError, InvalidInputError

_DRAWN = {"drawn_negatives", "drawn_by_popularity", "drawn_from_same"}
"""What the log has been joined with, which is in its own key."""


class Keys:
    """The keys of cells that learn one log. Equal keys mean equal content."""

    def __init__(self, log: StudyLog, day_zero: DayZero) -> None:
        self._log = log.key
        self._tables = day_zero.sources.key
        self._teachers: dict[str, str] = {}

    def teacher(self, cell: Cell) -> str:
        """The key of its teacher: table, ONNX file, lookup files, change; "" without one.

        ConfigurationError when a file is missing.
        """
        change, project = cell.variant.teacher, cell.project
        if project.teacher is None:
            return ""
        config = changed_config(change, project.needed_teacher)
        told = change.model_dump_json() + config.model_dump_json()
        if told not in self._teachers:
            try:
                self._teachers[told] = digest_of([told, *teacher_files(config, project.folder)])
            except InvalidInputError as error:
                raise ConfigurationError([f"variant {cell.variant.name}: teacher: {error}"]) from None
        return self._teachers[told]

    def log(self, cell: Cell) -> str:
        """The key of the examples that it learns, and of those after them."""
        return self._log if cell.share == 1 else digest_of([self._log, f"{cell.share} {cell.seed}"])

    def served_log(self, cell: Cell) -> str:
        """The key of the same examples with the features that a served prediction knows."""
        log = self.log(cell)
        return digest_of([log, str(cell.delay_seconds)]) if cell.served_knows_less else log

    def logits(self, cell: Cell) -> str:
        """The key of the teacher's logits of the log."""
        return digest_of([self.log(cell), self.teacher(cell)])

    def served_logits(self, cell: Cell) -> str:
        """The key of the teacher's logits of `served_log`."""
        return digest_of([self.served_log(cell), self.teacher(cell)])

    def day_zero(self, cell: Cell) -> str:
        """The key of the rows of its bootstrap, with their features and logits."""
        rows = f"{cell.project.bootstrap.rows} {cell.seed}"
        return digest_of([self.log(cell), self._tables, self.teacher(cell), rows])

    def result(self, cell: Cell) -> str:
        """The key of its result."""
        variant = cell.variant
        unused: dict[str, Any] = dict.fromkeys(("publish", "stream", "features"), True)
        unused["sampling"] = _DRAWN
        if not variant.bootstrap:
            unused["bootstrap"] = True
        part = [cell.events, cell.windows, cell.is_plain, variant.teacher_as_input]
        project = cell.project.model_dump_json(exclude=unused)
        started = self.day_zero(cell) if variant.bootstrap else ""
        told = [json.dumps([part, cell.delay_seconds]), project, started]
        return digest_of([self.logits(cell), self.served_log(cell), *told])
