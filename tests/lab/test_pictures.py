"""Pictures of the laboratory are written whole or not at all."""

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lab.page import save
from runtime.errors import GraftError
from tests.disks import Disk


def test_a_picture_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "auc.png"
    path.write_bytes(b"earlier")
    save(Figure(), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_earlier_picture_and_names_the_folder(disk: Disk) -> None:
    path = disk.folder / "auc.png"
    path.write_bytes(b"earlier")
    disk.fill()
    with pytest.raises(GraftError, match=rf"{re.escape(str(disk.folder))}: cannot be written: .*; make room"):
        save(Figure(), path)
    assert path.read_bytes() == b"earlier"
