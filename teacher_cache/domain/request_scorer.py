"""Computes the logits of teacher requests, for the batch scorer and the backfill; warns of inputs that fall back.

Shapes: B rows, T teacher tasks.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge

from features.spec import FeatureSpec, Value
from runtime.errors import ConfigurationError
from stream.events import TeacherRequest
from teacher_cache.domain.domain_map import DomainMap, MappedRows
from teacher_cache.teacher import Teacher, TeacherOutputError, counted_as_busy

BATCH_ROWS = 1024
"""Rows of one call of the teacher: its fixed cost is spread over them, and memory holds only so many at a time."""
MOST_FALLBACKS = 0.2
"""Warned of beyond this share: fewer rows are new users and items, more are a map that does not fit."""
_SHARE_ROWS = 1_000
"""A share is taken of at least so many rows, so that a few odd ones raise no warning."""
_ROWS_UNTIL_BACK = 10_000
"""A share is back when it was allowed for so many rows: an order of rows, as by user, is no news again and again."""

_LOG = logging.getLogger(__name__)
_REFUSED = Counter("graft_teacher_refused_rows", "Rows left out because the teacher has no finite output for them.")
_LACKING = Counter("graft_teacher_lacking_rows", "Rows left out because the teacher, a dump, does not have them.")
_SHARE = Gauge(
    "graft_teacher_input_fallback_share",
    "Share of the last thousand or more rows scored in which a mapped input took its default",
    ["input"],
)


class RefusedRow(NamedTuple):
    """A request that the teacher cannot score, and why."""

    request: TeacherRequest
    reason: str


class ScoredRows(NamedTuple):
    """Logits of the requests that have finite ones; and the mean share of mapped inputs that fell back, in [0, 1].

    `refused` are those that the teacher cannot score.
    """

    requests: Sequence[TeacherRequest]
    logit_BT: NDArray[np.float32]
    fallback_share: float
    refused: Sequence[RefusedRow] = ()


class ScoredPlaces(NamedTuple):
    """As `ScoredRows`, but by the rows' places: of those with logits, and by place the reason why there are none."""

    places: NDArray[np.intp]
    logit_BT: NDArray[np.float32]
    fallback_share: float
    refused: Mapping[int, str]


class RequestScorer:
    """The teacher behind the domain map, for rows that `spec` describes.

    `warns`: whether the log tells of inputs that take their default too often.
    """

    def __init__(self, teacher: Teacher, domain_map: DomainMap, spec: FeatureSpec, *, warns: bool = True) -> None:
        self._teacher = teacher
        self._domain_map = domain_map
        self._spec = spec
        self._watch = FallbackWatch(MOST_FALLBACKS if warns else 1.0)

    @property
    def defaulted_share(self) -> float:
        """See `DomainMap.defaulted_share`."""
        return self._domain_map.defaulted_share

    def score(self, requests: Sequence[TeacherRequest]) -> ScoredRows | None:
        """The logits of `requests`, in their order; None when there are none.

        A row that the teacher cannot score is logged, counted and set apart; its example is learnt from labels alone.
        So is that of a row that a dump lacks, which is counted and left out.
        ConfigurationError: a request was written with another feature spec. TeacherUnavailableError: the teacher's call
        failed for another reason than its rows.
        """
        if not requests:
            return None
        self._check_spec(requests)
        mapped = self.map_rows([request.features for request in requests])
        found = self.score_mapped(mapped, [request.impression_id for request in requests])
        refused = [RefusedRow(requests[place], reason) for place, reason in found.refused.items()]
        if len(found.places) < len(requests):
            requests = [requests[place] for place in found.places]
        return ScoredRows(requests, found.logit_BT, found.fallback_share, refused)

    def map_rows(self, features: Sequence[Sequence[Value]]) -> MappedRows:
        """The teacher's inputs for rows of this scorer's feature spec."""
        return self._domain_map.map_rows(self._spec.columns_of(features))

    def score_mapped(self, mapped: MappedRows, impression_ids: Sequence[str]) -> ScoredPlaces:
        """As `score`, for rows of these impressions that are mapped already; at least one."""
        places = np.arange(len(impression_ids))
        refused: dict[int, str] = {}
        while len(places):
            try:
                return self._scored(mapped, places, refused)
            except TeacherOutputError as error:
                _REFUSED.inc(len(error.rows))
                _LOG.error("%s; left out, first impression_id=%s", error, impression_ids[places[error.rows[0]]])
                refused |= {int(places[row]): error.reason for row in error.rows}
                kept = np.delete(np.arange(len(places)), error.rows)
                places, mapped = places[kept], mapped.at(kept)
        tasks = sum(not shape for shape in self._teacher.outputs.values())
        return ScoredPlaces(places, np.empty((0, tasks), np.float32), 0.0, refused)

    def _scored(self, mapped: MappedRows, places: NDArray[np.intp], refused: Mapping[int, str]) -> ScoredPlaces:
        with counted_as_busy():
            logit_BT = self._teacher.score(mapped.inputs)
        self._watch.add(mapped.fell_back)
        fallback_share = float(mapped.fallback_shares.mean())
        has_B: NDArray[np.bool_] = np.asarray(np.isfinite(logit_BT).all(axis=1))
        if has_B.all():
            return ScoredPlaces(places, logit_BT, fallback_share, refused)
        _LACKING.inc(int((~has_B).sum()))
        return ScoredPlaces(places[has_B], logit_BT[has_B], fallback_share, refused)

    def described(self, spec_ids: Sequence[str]) -> list[int]:
        """The places of those rows that were written with this scorer's feature spec."""
        own = self._spec.spec_id
        return [place for place, spec_id in enumerate(spec_ids) if spec_id == own]

    def describes(self, request: TeacherRequest) -> bool:
        """Whether the request was written with this scorer's feature spec."""
        return request.spec_id == self._spec.spec_id

    def _check_spec(self, requests: Sequence[TeacherRequest]) -> None:
        for request in requests:
            if not self.describes(request):
                fault = (
                    f"teacher request of impression {request.impression_id} was written with feature spec "
                    f"{request.spec_id}, this process reads spec {self._spec.spec_id}; run 'graft features apply' and "
                    "restart this process, or drain the topic with the older spec first"
                )
                raise ConfigurationError([fault])


class FallbackWatch:
    """Counts rows; logs when an input's share passes `allowed`, and when it has been allowed for 10,000 rows again."""

    def __init__(self, allowed: float) -> None:
        self._allowed = allowed
        self._rows = 0
        self._fell_back: dict[str, int] = {}
        self._rows_below: dict[str, int] = {}
        """Of each input that was warned of: the rows since its share was last above."""

    def add(self, fell_back: Mapping[str, NDArray[np.bool_]]) -> None:
        """Count scored rows: by mapped input which of them took its default, [B]."""
        for name, fell_back_B in fell_back.items():
            self._fell_back[name] = self._fell_back.get(name, 0) + int(np.count_nonzero(fell_back_B))
        self._rows += max((len(fell_back_B) for fell_back_B in fell_back.values()), default=0)
        if self._rows >= _SHARE_ROWS:
            self._judge()

    def _judge(self) -> None:
        allowed = f"{self._allowed:.1%}"
        for name, count in self._fell_back.items():
            share = count / self._rows
            _SHARE.labels(name).set(share)
            if share > self._allowed:
                if name not in self._rows_below:
                    _LOG.warning(
                        "teacher.inputs.%s took its default in %s of %d rows, more than %s: "
                        "its features are missing, unknown to its table, or do not fit; see 'graft teacher "
                        "explain'",
                        *(name, f"{share:.1%}", self._rows, allowed),
                    )
                self._rows_below[name] = 0
            elif name in self._rows_below:
                self._rows_below[name] += self._rows
                if self._rows_below[name] >= _ROWS_UNTIL_BACK:
                    rows = self._rows_below.pop(name)
                    _LOG.info("teacher.inputs.%s took its default in at most %s of %d rows", name, allowed, rows)
        self._rows, self._fell_back = 0, {}
