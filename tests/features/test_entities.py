"""Which users and items there are on day zero."""

from datetime import timedelta

import pyarrow.parquet as pq

from features.repo.store import known_ids

NO_REDIS = "redis://127.0.0.1:1/0"


def test_the_ids_are_those_of_the_batch_tables_without_what_no_event_could_name(applied):
    users, items = known_ids(applied.repo, NO_REDIS, applied.spec)
    assert set(users) == set(applied.users)
    assert set(items) == set(applied.items) - {""}


def test_a_table_that_is_not_there_yet_names_nobody(applied, repo):
    (repo / "data" / "items.parquet").unlink()
    users, items = known_ids(repo, NO_REDIS, applied.spec)
    assert (len(users), items) == (len(applied.users), [])


def test_an_id_whose_first_row_begins_later_is_not_known_yet(applied, repo):
    path = repo / "data" / "items.parquet"
    items = pq.read_table(path)
    begins = items["event_timestamp"].to_pylist()
    later = [max(begins) + timedelta(days=1), *begins[1:]]
    pq.write_table(items.set_column(items.column_names.index("event_timestamp"), "event_timestamp", [later]), path)
    first = items[applied.spec.item_join_key][0].as_py()
    (_, known), (_, all_) = (known_ids(repo, NO_REDIS, applied.spec, until) for until in (max(begins), max(later)))
    assert set(all_) - set(known) == {first}
