"""Which users and items there are on day zero."""

from features.entities import known_ids

NO_REDIS = "redis://127.0.0.1:1/0"


def test_the_ids_are_those_of_the_batch_tables_without_what_no_event_could_name(applied):
    users, items = known_ids(applied.repo, NO_REDIS, applied.spec)
    assert set(users) == set(applied.users)
    assert set(items) == set(applied.items) - {""}


def test_a_table_that_is_not_there_yet_names_nobody(applied, repo):
    (repo / "data" / "items.parquet").unlink()
    users, items = known_ids(repo, NO_REDIS, applied.spec)
    assert (len(users), items) == (len(applied.users), [])
