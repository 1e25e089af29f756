"""Profiles through Feast's push into Redis, back through the reader, and into the batch table."""

from collections.abc import Iterable

import pyarrow.parquet as pq
import pytest

from features.online.reader import OnlineReader
from features.push.pushed_rows import ViewRows
from features.push.pusher import LoggedPusher
from features.repo.batch_tables import collect
from features.repo.push_log import UNLOGGED
from features.repo.store import open_store, pushed_tables
from runtime.errors import ConfigurationError

EARLY_MS, LATE_MS = 1_000, 1_767_268_800_000


class Taught:
    """Profiles of items."""

    def __init__(self, of):
        self._of = of

    def has(self, entity, entity_id):
        return entity == "item" and entity_id in self._of

    def rows(self, _push_source, _entity, ids: Iterable):
        likes, vectors = zip(*(self._of[one] for one in ids), strict=True)
        return {"like": list(likes), "vector": list(vectors)}


@pytest.fixture
def pusher(applied, config):
    made = LoggedPusher(applied.repo, applied.redis_url, config.profiles)
    yield made
    made.close()


@pytest.fixture
def rows(applied, config):
    views = {"user_taught_push": "user_taught", "item_taught_push": "item_taught"}
    found = ViewRows(applied.redis_url, applied.spec, views, config.profiles)
    yield found
    found.remove()


def read(applied, item, event_time_ms):
    reader = OnlineReader(applied.spec, applied.redis_url)
    columns = reader.read_at([1], [item], [{}], [event_time_ms])
    return columns["item_taught:like"][0], columns["item_taught:vector"][0], columns["items:year"][0]


@pytest.mark.usefixtures("rows")
def test_profiles_are_read_back_by_an_impression_of_any_time(applied, pusher):
    assert read(applied, "i1", LATE_MS)[:2] == (None, None)
    pusher.push(Taught({"i1": (0.5, [1.0, -2.0])}), {"item": ["i1"]}, LATE_MS)
    like, vector, year = read(applied, "i1", EARLY_MS)
    assert (like, vector) == (0.5, [1.0, -2.0])
    assert year is None, "a batch row that begins later is left out"


def test_profiles_are_counted_and_removed_and_other_features_stay(applied, pusher, rows):
    pusher.push(Taught({"i1": (0.5, [1.0, 2.0]), "i2": (1.5, [3.0, 4.0])}), {"item": ["i1", "i2"]}, LATE_MS)
    assert rows.count() == 2
    assert rows.remove() == 2
    assert read(applied, "i1", 2 * LATE_MS)[:2] == (None, None)
    assert read(applied, "i1", 2 * LATE_MS)[2] is not None


@pytest.mark.usefixtures("rows")
def test_the_batch_table_has_every_change_and_no_repetition(applied, pusher):
    unlogged = UNLOGGED._value.get()
    for shown_ms, vector in ((0, [1.0, 2.0]), (EARLY_MS, [1.0, 2.0]), (LATE_MS, [3.0, 4.0])):
        pusher.push(Taught({"i7": (0.5, vector)}), {"item": ["i7"]}, shown_ms)
    pusher.close()
    table = pushed_tables(open_store(applied.repo, applied.redis_url))["item_taught_push"]
    collect(table)
    rows = [row for row in pq.read_table(table.path).to_pylist() if row["item_code"] == "i7"]
    assert [row["vector"] for row in rows] == [None, [1.0, 2.0], [3.0, 4.0]]
    assert [row["like"] for row in rows] == [None, 0.5, 0.5]
    micros = [round(row["event_timestamp"].timestamp() * 1e6) for row in rows]
    assert micros == [0, 1, 1000 * LATE_MS + 1]
    assert UNLOGGED._value.get() == unlogged


def test_the_spec_knows_which_features_are_the_teachers(applied):
    profiles = {feature.name: feature.profile_of for feature in applied.spec.features if feature.profile_of}
    assert profiles == {"user_taught:like": "like", "item_taught:like": "like", "item_taught:vector": "own"}


def test_a_feature_that_is_no_profile_leaves_the_specs_id_as_it_was(applied):
    assert "profile_of" not in applied.spec.dense[0].model_dump_json()


def test_faults_of_profiles_are_named(repo, changed_config):
    from features.repo.store import compile_spec  # noqa: PLC0415 - only these tests pay for Feast

    profiles = [
        {"entity": "user", "push_source": "item_taught_push", "columns": {"like": "like"}},
        {"entity": "item", "push_source": "item_history_push", "columns": {"shown": "like", "like_rate": "like"}},
        {"entity": "item", "push_source": "nowhere", "columns": {"like": "like"}},
    ]
    with pytest.raises(ConfigurationError) as caught:
        compile_spec(repo, "redis://127.0.0.1:1/0", changed_config(profiles=profiles))
    text = "\n".join(caught.value.faults)
    for fault in (
        "features.profiles.item_taught_push: view 'item_taught' must have the entity 'user'",
        "its columns must be the features of view 'item_taught', which are written whole: like, vector; got like",
        "features.profiles.item_history_push: stands twice; one table feeds a push source",
        "features.profiles.item_history_push.columns.shown: needs a field of type FLOAT, DOUBLE, FLOAT_LIST",
        "features.profiles.nowhere: no push source of a view 'nowhere'",
        "features.profiles.nowhere: another table has profiles of the item, too",
    ):
        assert fault in text
