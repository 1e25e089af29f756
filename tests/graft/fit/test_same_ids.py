"""When ids of two domains are the same ids."""

from pathlib import Path

import pytest

from graft.fit.domain import SourceFiles, read_source
from graft.fit.shared import same_ids
from graft.init.roles import Given

HEAD = "user_id,item_id,timestamp,liked\n"


def _log(path: Path, users: list[str]) -> SourceFiles:
    rows = "".join(f"{user},item {i},{1_700_000_000 + i},{i % 2}\n" for i, user in enumerate(users))
    path.write_text(HEAD + rows)
    return SourceFiles(str(path))


def _verdict(
    folder: Path, here: list[str], there: list[str], tables: tuple[str, str] | None = None
) -> tuple[bool, str]:
    """Of the users of two logs, with a column of a table each."""
    files = _log(folder / "here.csv", here), _log(folder / "there.csv", there)
    if tables:
        for name, text in zip(("here_users.csv", "there_users.csv"), tables, strict=True):
            (folder / name).write_text(text)
        files = tuple(
            one._replace(users=str(folder / name))
            for one, name in zip(files, ("here_users.csv", "there_users.csv"), strict=True)
        )
    target, source = (read_source(one, Given()) for one in files)
    return same_ids("user", target, source)


@pytest.mark.parametrize(
    ("here", "there", "is_same"),
    [
        ([f"{i}" for i in range(1, 50)], [f"{i}" for i in range(1, 200)], False),
        ([f"user_{i}" for i in range(1, 50)], [f"user_{i}" for i in range(1, 200)], False),
        ([f"{i}" for i in range(1, 50)], [*(f"{i}" for i in range(1, 200)), "guest", ""], False),
        ([f"{i * 7919}" for i in range(1, 50)], [f"{i * 7919}" for i in range(20, 200)], True),
        ([f"{i:x}-ab{i * 31:x}" for i in range(50)], [f"{i:x}-ab{i * 31:x}" for i in range(40, 99)], True),
        ([f"ann {i}" for i in range(50)], [f"bob {i}" for i in range(50)], False),
    ],
    ids=[
        "numbers from 1 on",
        "numbers with a text before",
        "numbers and a guest",
        "sparse numbers",
        "texts",
        "no id in common",
    ],
)
def test_without_tables_the_share_of_ids_decides_but_numbers_from_1_on_say_nothing(tmp_path, here, there, is_same):
    assert _verdict(tmp_path, here, there)[0] is is_same


def _table(numbers: range, shift: int) -> str:
    return "user_id,town,plan\n" + "".join(f"{i},town {(i + shift) % 11},free\n" for i in numbers)


def test_a_column_that_both_tables_have_decides(tmp_path):
    ids = [f"{i}" for i in range(1, 60)]
    same = _verdict(tmp_path, ids, ids, (_table(range(1, 60), 0), _table(range(1, 60), 0)))
    assert same == (
        True,
        "the source has 100% of the users here, and town is equal in 100% of them",
    )
    other = _verdict(tmp_path, ids, ids, (_table(range(1, 60), 0), _table(range(1, 60), 4)))
    assert other == (
        False,
        "the source has 100% of the users here, and town is equal in 0% of them, about as by chance",
    )


def test_a_column_with_one_value_decides_nothing(tmp_path):
    ids = [f"{i}" for i in range(1, 60)]
    tables = ("user_id,plan\n" + "".join(f"{i},free\n" for i in ids),) * 2
    assert "ids that are numbers say nothing: name tables of both" in _verdict(tmp_path, ids, ids, tables)[1]
