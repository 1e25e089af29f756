"""Where a study reads its log and keeps what its cells have found."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from features.spec import FeatureSpec
from lab.study.cell import Predictions
from lab.study.day_zero import DayZero
from lab.study.keys import Keys
from lab.study.plan import Cell


class Workplace(NamedTuple):
    """Where a study reads its log and keeps what it has computed."""

    log_folder: Path
    spec: FeatureSpec
    day_zero: DayZero
    keys: Keys
    out: Path
    generation: str | None = None
    """Of the project's logits, where the log has any."""
    log_events: int | None = None
    """The grid's."""

    def result_path(self, cell: Cell) -> Path:
        """The file of a finished cell."""
        return self.out / "results" / f"{self.keys.result(cell)}.json"

    def predictions_path(self, cell: Cell) -> Path:
        """The file of its predictions."""
        return self.out / "predictions" / f"{self.keys.result(cell)}.npz"

    def predictions(self, cell: Cell) -> Predictions:
        """The predictions of a finished cell."""
        with np.load(self.predictions_path(cell), allow_pickle=False) as kept:
            return Predictions(**kept)
