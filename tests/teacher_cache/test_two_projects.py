"""Two projects with one teacher's server and one Redis: each has its own rows alone."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from runtime.redis import connect
from stream.events import TeacherRequest
from teacher_cache.cache.cache import LogitCache
from teacher_cache.cache.generation import generation_of
from teacher_cache.cache.inventory import CachedKeys
from tests.teacher_cache.kinds import LIKE_UI, TASKS, v2_server
from tests.teacher_cache.test_failing_server import _SPEC, _config, _run
from tests.teacher_cache.test_failing_teacher import _Requests
from tests.teacher_cache.v2_server import running


def _request(user: int, item: int, shown_as: int) -> TeacherRequest:
    """A user and an item of a surface, which the teacher knows as another item."""
    features = [user, shown_as]
    fields = {"impression_id": f"{user}-{item}", "user_id": user, "item_id": item, "event_time_ms": 1, "context": {}}
    return TeacherRequest.model_validate(fields | {"spec_id": _SPEC.spec_id, "features": features})


def test_neither_of_two_projects_sees_the_others_rows(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher_cache.batch_scorer.BATCH_ROWS", 4)
    rows = {  # the same ids of two surfaces mean other items of the teacher's
        "music": _Requests([_request(user, item, item) for user in range(3) for item in range(4)]),
        "news": _Requests([_request(user, item, 5 - item) for user in range(2, 5) for item in range(4)]),
    }
    with running(v2_server(tmp_path)) as server, ThreadPoolExecutor(2) as pool:
        config = _config(server)
        keys = {name: generation_of(name, config, tmp_path, _SPEC).key for name in rows}
        runs = {name: pool.submit(_run, server, rows[name], redis_url, tmp_path, keys[name]) for name in rows}
        found = {name: run.result()[:, 0].reshape(3, 4).tolist() for name, run in runs.items()}
    assert found == {"music": LIKE_UI[:3, :4].tolist(), "news": LIKE_UI[2:5, 5:1:-1].tolist()}
    names = [task["name"] for task in TASKS]
    with closing(LogitCache(redis_url, keys["music"], names, 100)) as music, connect(redis_url) as client:
        assert np.isnan(music.get(music.keys_of(rows["news"].waiting)).logit_BT[4:, 0]).all()
        assert CachedKeys(redis_url, "news").remove() == 3  # a hash for each user
        assert len(client.keys("graft:logits:*")) == 3  # type: ignore[arg-type]
        assert np.isfinite(music.get(music.keys_of(rows["music"].waiting)).logit_BT[:, 0]).all()
