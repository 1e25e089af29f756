"""A batch scorer whose teacher is a server that fails and comes back: the cache ends as an undisturbed one's."""

from contextlib import closing
from pathlib import Path
from threading import Timer

import numpy as np
import pytest

from features.spec import Feature
from stream.events import TeacherRequest
from teacher_cache.batch_scorer import run_batch_scorer
from teacher_cache.cache.cache import LogitCache
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher
from tests.specs import spec_of
from tests.teacher_cache.kinds import BAD_ITEM, LIKE_UI, TASKS, USERS, v2_server
from tests.teacher_cache.test_failing_teacher import _Requests
from tests.teacher_cache.test_served_teacher import _FAULTS
from tests.teacher_cache.v2_server import V2Server, running

_SPEC = spec_of(
    Feature(name="user_id", source="user_id", role="categorical", dtype="int", default=None),
    Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None),
)
_QUICK = ("dropped", "half", "503", "429", "502 of a proxy", "401", "no JSON", "no outputs", "huge as told")


@pytest.fixture
def server(tmp_path: Path) -> V2Server:
    return v2_server(tmp_path)


@pytest.fixture
def requests() -> _Requests:
    """One of each user and item; the row of the item with a rating that is not finite is refused."""
    rows = [
        TeacherRequest(
            impression_id=f"{user}-{item}", user_id=user, item_id=item, event_time_ms=1, context={},
            spec_id=_SPEC.spec_id, features=[user, item],
        )
        for user in range(USERS)
        for item in range(BAD_ITEM + 1)
    ]  # fmt: skip
    return _Requests(rows)


def _config(server: V2Server) -> TeacherConfig:
    inputs = {name: {"kind": "feature", "feature": f"{name}_id", "default": 0} for name in ("user", "item")}
    told = {"url": server.url, "model": "sister", "batch_rows": 3}
    table = {"version": "t1", "tasks": TASKS, "inputs": inputs, "server": told}
    return TeacherConfig.model_validate(table)


def _run(server: V2Server, requests: _Requests, redis_url: str, folder: Path, generation: str) -> np.ndarray:
    config = _config(server)
    teacher = load_teacher(config, folder)
    scorer = RequestScorer(teacher, DomainMap(config, folder, teacher, _SPEC), _SPEC)
    with closing(LogitCache(redis_url, generation, ("like", "stars"), 100)) as cache:
        run_batch_scorer(requests, scorer, cache, config, requests.stop)
        return cache.get(cache.keys_of(requests.waiting)).logit_BT


def test_a_server_that_fails_again_and_again_fills_the_cache_as_an_undisturbed_one(
    server: V2Server, requests: _Requests, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher_cache.batch_scorer.BATCH_ROWS", 8)
    with running(server):
        server.faults += [_FAULTS[name][0] for name in _QUICK]
        found = _run(server, requests, redis_url, tmp_path, "p:failing")
        assert not server.faults
    expected = LIKE_UI.copy()
    expected[:, BAD_ITEM] = np.nan
    assert found[:, 0].tobytes() == expected.reshape(-1).tobytes()
    assert requests.committed == requests.waiting
    assert requests.aside == [f"{user}-{BAD_ITEM}" for user in range(USERS)]


def test_a_server_that_is_gone_for_a_while_costs_nothing(
    server: V2Server, requests: _Requests, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher_cache.batch_scorer.BATCH_ROWS", 8)
    first = running(server)
    first.__enter__()
    polled, later = requests.poll, running(server)
    back = Timer(0.5, later.__enter__)

    def goes_away(timeout_seconds: float, most: int) -> object:
        if len(requests.committed) >= 16 and not back.ident:
            first.__exit__(None, None, None)
            back.start()
        return polled(timeout_seconds, most)

    monkeypatch.setattr(requests, "poll", goes_away)
    try:
        found = _run(server, requests, redis_url, tmp_path, "p:gone")
    finally:
        back.join()
        later.__exit__(None, None, None)
    assert np.isnan(found[:, 0]).sum() == USERS
    assert requests.committed == requests.waiting
    assert len(requests.aside) == USERS
