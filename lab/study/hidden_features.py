"""Features that the learner of a variant does not see, though log, teacher and plain models have them.

Shapes: P rows, D dense columns, C categorical columns.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from features.spec import FeatureBatch, FeatureSpec
from lab.study.study_log import StudyLog
from student.learn.bootstrap import DayZeroRows


class HiddenFeatures:
    """Hides the features of these names, and all of the views of these names, from a learner that reads `spec`.

    A hidden feature is one for the teacher alone: it is read and logged, not encoded. `hidden_faults` must have found
    no fault.
    """

    def __init__(self, spec: FeatureSpec, names: Sequence[str]) -> None:
        self._hidden = frozenset(f.name for f in spec.features if not {f.name, f.view}.isdisjoint(names))
        dense = [f.name not in self._hidden for f in spec.dense for _ in range(f.width)]
        self._dense_D = np.array(dense, np.bool_)
        self._categorical_C = np.array([f.name not in self._hidden for f in spec.categorical], np.bool_)
        features = [
            f.model_copy(update={"role": "passthrough"}) if f.name in self._hidden else f for f in spec.features
        ]
        # Read anew: a copy would keep what the old one has computed of itself.
        self._spec = FeatureSpec.model_validate({**spec.model_dump(), "features": features})

    def of_log(self, log: StudyLog) -> StudyLog:
        """The same examples; the log itself where nothing is hidden."""
        if not self._hidden:
            return log
        records = [
            record._replace(example=record.example.model_copy(update={"spec_id": self._spec.spec_id}))
            for record in log.records
        ]
        return StudyLog(self._spec, records)

    def of_rows(self, rows: DayZeroRows) -> DayZeroRows:
        """The same P rows of a bootstrap without the hidden columns."""
        dense_PD, categorical_PC = rows.features
        return rows._replace(features=FeatureBatch(dense_PD[:, self._dense_D], categorical_PC[:, self._categorical_C]))


def hidden_faults(spec: FeatureSpec, names: Sequence[str]) -> Iterator[str]:
    """Each name that hides nothing."""
    seen = [f for f in spec.features if f.role != "passthrough"]
    known = {name for f in seen for name in (f.name, f.view) if name}
    for name in names:
        if name not in known:
            yield f"hidden: the student sees no feature and no view {name!r}; there are {', '.join(sorted(known))}"
