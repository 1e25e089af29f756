"""Which profiles are computed when, and by whom; Redis holds the queue."""

import itertools

import numpy as np
import pytest

from features.config import ProfileConfig
from runtime.errors import InvalidInputError, ServiceUnavailableError
from runtime.telemetry import StopSignal
from teacher_cache import profiles
from teacher_cache.batch_scorer import run_batch_scorer
from teacher_cache.cache.cache import LogitCache
from teacher_cache.profiles import ProfileQueue, Profiles, ProfileScorer, ProfileTable
from tests.rows import keys

_NUMBERS = itertools.count()
AGE_SECONDS = 86_400.0


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def time(self):
        return self.now


class Tables:
    """Batch tables that a test writes."""

    def __init__(self, users=(1, 2, 3), items=(10, 11)):
        self.write(users, items)

    def write(self, users, items):
        self._ids = {"user": list(users), "item": list(items)}
        self._stamp = next(_NUMBERS)

    def stamp(self):
        return self._stamp

    def ids(self):
        return self._ids


class Doubles:
    """A profiler and a pusher that note what they are asked for."""

    def __init__(self):
        self.references, self.pushed, self.shown_ms = [], [], []

    def profiles(self, config, ids, references):
        self.references.append(list(references))
        return Profiles(config, {one: {"like": 0.5} for one in ids})

    def push(self, _profiles, ids, shown_ms):
        self.pushed.append({entity: sorted(ids[entity], key=str) for entity in ids})
        self.shown_ms.append(shown_ms)


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(profiles, "time", made)
    return made


@pytest.fixture
def doubles():
    return Doubles()


@pytest.fixture
def start(redis_url, spec, doubles):
    """Starts a scorer of user profiles; another one of the same `version` shares its queue."""
    version = f"v{next(_NUMBERS)}-{redis_url.rpartition(':')[2].replace('/', '.')}"
    config = ProfileConfig(entity="user", push_source="users", references=1, columns={"like": "finish"})

    def begin(tables):
        queue = ProfileQueue(redis_url, version, spec, config)
        return ProfileScorer([ProfileTable(config, queue)], doubles, doubles, tables)

    return begin


def test_ids_of_the_tables_are_scored_once_and_again_when_they_are_old(start, doubles, clock):
    scorer = start(Tables())
    assert scorer.refresh() == 3
    assert doubles.pushed == [{"user": [1, 2, 3]}]
    clock.now += AGE_SECONDS - 1
    assert scorer.refresh() == 0
    clock.now += 2
    assert scorer.refresh() == 3


def test_new_ids_of_the_tables_and_ids_that_were_asked_for_are_scored(start, doubles, clock, request_of):
    tables = Tables()
    scorer = start(tables)
    scorer.refresh()
    scorer.ask([request_of(0, user_id=2), request_of(1, user_id=77), request_of(2, user_id="no join key")])
    tables.write((1, 2, 3, 4), (10,))
    assert scorer.refresh() == 2
    assert doubles.pushed[-1] == {"user": [4, 77]}


def test_what_was_never_scored_comes_before_what_is_old(start, doubles, clock, monkeypatch):
    tables = Tables()
    scorer = start(tables)
    scorer.refresh()
    clock.now += 2 * AGE_SECONDS
    tables.write((1, 2, 3, 4, 5), (10,))
    monkeypatch.setattr(profiles, "PASS_IDS", 2)
    assert scorer.refresh() == 2
    assert doubles.pushed[-1] == {"user": [4, 5]}


def test_another_process_goes_on_with_the_same_references(start, doubles, clock, monkeypatch):
    monkeypatch.setattr(profiles, "PASS_IDS", 2)
    start(Tables(items=(10, 11))).refresh()
    restarted = start(Tables(items=range(100)))
    assert [restarted.refresh(), restarted.refresh()] == [1, 0]
    assert doubles.references[0] == doubles.references[1]
    assert sorted(one for push in doubles.pushed for one in push["user"]) == [1, 2, 3]


def test_a_push_tells_up_to_which_impression_nobody_had_read_it(start, doubles, clock, request_of):
    scorer = start(Tables())
    scorer.refresh()
    scorer.ask([request_of(5, user_id=50), request_of(4, user_id=40)])
    scorer.refresh()
    assert doubles.shown_ms == [0, request_of(5).event_time_ms]


def test_tables_without_a_reference_are_refused(start, clock):
    with pytest.raises(InvalidInputError, match=r"profiles of users: the batch tables have no item"):
        start(Tables(items=())).refresh()


@pytest.mark.usefixtures("clock")
def test_the_batch_scorer_scores_profiles_beside_the_requests(start, doubles, scorer, config, redis_url, request_of):
    stop, waiting = StopSignal(), [request_of(n, user_id=n) for n in range(5)]

    class Requests:
        def poll(self, _timeout_seconds, _max_records):
            polled = waiting.copy()
            waiting.clear()
            if not polled and len(doubles.pushed) == 1:
                stop.set()
            return polled

        def commit(self): ...

        def lag(self):
            return 0

        waited_seconds = 0.0
        traceparents = ()

    cache = LogitCache(redis_url, "p:g1", ["finish", "rating"], 100)
    run_batch_scorer(Requests(), scorer, cache, config, stop, start(Tables(users=(2, 9))))
    assert doubles.pushed == [{"user": [0, 1, 2, 3, 4, 9]}]


@pytest.mark.usefixtures("clock")
def test_no_logit_waits_for_a_profile_that_cannot_be_pushed(
    start, doubles, scorer, config, redis_url, request_of, caplog
):
    stop, waiting, refused = StopSignal(), [[request_of(1)], [request_of(2)]], []

    def refuse(*_args):
        refused.append(1)
        raise ServiceUnavailableError("WRONGTYPE")

    class Requests:
        def poll(self, _timeout_seconds, _max_records):
            if refused and not waiting:
                stop.set()
            return waiting.pop() if waiting else []

        def commit(self): ...

        def lag(self):
            return 0

        waited_seconds = 0.0
        traceparents = ()

    doubles.push = refuse
    cache = LogitCache(redis_url, "p:g1", ["finish", "rating"], 100)
    run_batch_scorer(Requests(), scorer, cache, config, stop, start(Tables()))
    assert np.isfinite(cache.get(keys(cache, [1, 1], [1, 2])).logit_BT).all()
    assert "profiles are tried again with the next pass" in caplog.text
