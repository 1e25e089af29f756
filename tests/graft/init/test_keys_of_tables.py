"""Which column of a table has the log's ids: never one that has numbers of that size by chance."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LOG = "user_id,item_id,ts,clicked\n" + "".join(f"{n % 50},i{n % 9},{1_700_000_000 + n},{n % 2}\n" for n in range(300))


def users_of(folder):
    rows = pq.read_table(folder / "shop" / "feature_repo" / "data" / "user_profile.parquet").to_pylist()
    return {row["user_id"]: row["age"] for row in rows}


def write(folder, users):
    (folder / "log.csv").write_text(LOG)
    (folder / "users.csv").write_text(users)
    return "--events", folder / "log.csv", "--users", folder / "users.csv"


def test_a_row_of_another_kind_of_id_is_left_out_and_does_not_make_ages_the_key(tmp_path, summary):
    rows = "".join(f"{n},{20 + n % 30}\n" for n in range(50))
    said = summary(*write(tmp_path, f"user_id,age\n{rows}anonymous,33\n"))
    assert users_of(tmp_path) == {n: 20 + n % 30 for n in range(50)}
    assert any("1 rows were left out, in which 'user_id' is not an integer" in note for note in said["notes"])


@pytest.mark.parametrize("name", ["customer_no", "user_id"])
def test_ids_that_are_written_otherwise_are_an_error_that_shows_both(tmp_path, init, name):
    rows = "".join(f"{n:06d},{20 + n % 30}\n" for n in range(50))
    result = init(*write(tmp_path, f"{name},age\n{rows}"), "--yes")
    assert result.exit_code == 1
    assert f"has ids such as 0, 1, 2; '{name}' has 000000, 000001, 000002: write them alike" in result.output


def test_numbers_that_do_not_tell_the_rows_apart_are_no_key_whatever_their_name(tmp_path, init):
    rows = "".join(f"{20 + n % 30},c{n}\n" for n in range(50))
    result = init(*write(tmp_path, f"age,city\n{rows}"), "--yes")
    assert "no column has an id of the log's users" in result.output


def test_a_key_of_any_name_is_found_by_its_ids(tmp_path, summary):
    summary(*write(tmp_path, "nr,user,age\n" + "".join(f"{n}.0,Ann {n},{20 + n % 30}\n" for n in range(50))))
    assert users_of(tmp_path) == {n: 20 + n % 30 for n in range(50)}


@pytest.mark.parametrize("price", ["{}", "{}.5"])
def test_the_table_of_the_others_is_refused_though_its_numbers_are_ids_too(tmp_path, init, price):
    rows = "".join(f"{n},{price.format(n)}\n" for n in range(40))
    result = init(*write(tmp_path, f"item_id,price\n{rows}"), "--yes")
    assert "no column has an id of the log's users" in result.output
    assert "is it the table of other users?" in result.output


def test_columns_of_every_arrow_type_beside_a_text_key_of_whole_numbers_are_read(tmp_path, summary):
    columns = {
        "member": pa.array([str(n) for n in range(50)]),
        "half": pa.array(np.full(50, 1.5), pa.float16()),
        "plan": pa.array(["a", "b"] * 25).dictionary_encode(),
        "fee": pa.array([None if n % 5 == 0 else Decimal(n) / 4 for n in range(50)], pa.decimal128(10, 4)),
        "since": pa.array([1_500_000_000] * 50, pa.timestamp("s", tz="America/New_York")),
        "big": pa.array([2**62 + n for n in range(50)]),
        "vector": pa.array([[1.0, 2.0]] * 50, pa.list_(pa.float64(), 2)),
    }
    (tmp_path / "log.csv").write_text(LOG)
    pq.write_table(pa.table(columns), tmp_path / "users.parquet")
    said = summary("--events", tmp_path / "log.csv", "--users", tmp_path / "users.parquet")
    assert said["faults"] == []
    rows = pq.read_table(tmp_path / "shop" / "feature_repo" / "data" / "user_profile.parquet").to_pylist()
    del rows[1]["event_timestamp"], rows[1]["fee"]
    since = np.float32(1_500_000_000 / 86_400)
    told = {"half": 1.5, "plan": "b", "since": since, "big": 2**62 + 1, "vector": [1.0, 2.0]}
    assert rows[1] == {"user_id": 1, **told}
    assert [row["fee"] is None for row in rows[:6] if "fee" in row] == [True, False, False, False, True]


def test_numbers_with_a_comma_are_noted_as_texts(tmp_path, summary):
    rows = "".join(f"{n};{20 + n};{n},99;{n:05d}\n" for n in range(50))
    said = summary(*write(tmp_path, f"user_id;age;fee;zip\n{rows}"))
    told = [note for note in said["notes"] if "are texts and no numbers" in note]
    assert len(told) == 1
    assert "fee: its values, such as '0,99', '1,99', '2,99', are texts and no numbers" in told[0]


def test_ids_that_all_have_leading_zeros_are_found_in_log_and_table(tmp_path, summary):
    (tmp_path / "log.csv").write_text(
        "t_dat,customer_id,article_id\n"
        + "".join(f"2018-09-{n % 28 + 1:02d},c{n % 9},{n % 30:010d}\n" for n in range(99))
    )
    (tmp_path / "articles.csv").write_text("article_id,group\n" + "".join(f"{n:010d},{n % 4}\n" for n in range(30)))
    said = summary("--events", tmp_path / "log.csv", "--items", tmp_path / "articles.csv")
    assert not any("the table does not have" in note for note in said["notes"])
    rows = pq.read_table(tmp_path / "shop" / "feature_repo" / "data" / "item_profile.parquet").to_pylist()
    assert [row["item_id"] for row in rows] == [f"{n:010d}" for n in range(30)]
