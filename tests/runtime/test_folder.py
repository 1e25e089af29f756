import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runtime.errors import GraftError, ServiceUnavailableError
from runtime.folder import claim_folder, open_parquet, refusal, remove_partial_files, replacing, writing
from tests.disks import Disk


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _write(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def test_a_file_is_there_under_its_name_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert _names(tmp_path) == ["file"]


def test_after_an_error_the_old_file_stays_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.write("no bytes")
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path / "whole", b"1")
    (tmp_path / ".whole.4711.partial").write_bytes(b"half")
    (tmp_path / ".lock").touch()
    remove_partial_files(tmp_path)
    assert _names(tmp_path) == [".lock", "whole"]


def test_a_folder_has_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with claim_folder(folder, "in use"), pytest.raises(GraftError, match=f"^{folder}: in use$"):
        claim_folder(folder, "in use").__enter__()
    with claim_folder(folder, "in use"):
        pass


def test_a_full_disk_is_one_line_that_names_the_folder_and_takes_no_room(disk: Disk) -> None:
    _write(disk.folder / "file", b"old")
    disk.fill(spare_bytes=8192)
    with pytest.raises(GraftError) as caught:
        _write(disk.folder / "file", bytes(65_536))
    assert str(caught.value) == (
        f"{disk.folder}: cannot be written: No space left on device; make room on its disk, then start again"
    )
    assert (disk.folder / "file").read_bytes() == b"old"
    assert _names(disk.folder) == ["ballast", "file"]


def test_a_read_only_disk_is_one_line_that_names_the_folder(disk: Disk) -> None:
    disk.refuse_writes()
    told = f"{disk.folder}: cannot be written: Read-only file system; mount it for writing, or name another folder"
    for attempt in (lambda: claim_folder(disk.folder, "").__enter__(), lambda: _write(disk.folder / "file", b"1")):
        with pytest.raises(GraftError) as caught:
            attempt()
        assert str(caught.value) == told


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "versions"
    with pytest.raises(GraftError, match=f"^{folder}: cannot be written: File exists$"):
        claim_folder(folder, "").__enter__()


def test_the_right_to_write_is_asked_for() -> None:
    with (
        pytest.raises(GraftError, match=r"^here: cannot be written: Permission denied; give this process's user"),
        writing(Path("here")),
    ):
        raise PermissionError(13, "Permission denied")


def test_a_service_that_is_away_is_not_the_disks_fault() -> None:
    away = ServiceUnavailableError("Kafka does not answer")
    with pytest.raises(ServiceUnavailableError) as caught, writing(Path("here")):
        raise away
    assert caught.value is away


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied", "run"),
            "run: Permission denied; give this process's user ",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), None),  # a port
        (OSError(errno.ENOSPC, "No space left on device"), "a file: No space left on device; make room on its disk"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "run"), None),
    ],
)
def test_a_refusal_is_of_a_file_that_disk_or_owner_refuse(error: OSError, said: str | None) -> None:
    told = refusal(error)
    assert told is None if said is None else told is not None and told.startswith(said)


_ROWS = 4_000_000


@pytest.fixture(scope="module")
def numbers() -> pa.Table:
    return pa.table({"number": np.random.default_rng(1).integers(1 << 60, size=_ROWS)})  # 31 MiB, incompressible


@pytest.mark.parametrize("row_group_size", [_ROWS // 40, _ROWS])
def test_of_a_file_that_is_read_by_batches_a_small_part_is_in_memory(tmp_path, numbers, row_group_size):
    path = tmp_path / "numbers.parquet"
    pq.write_table(numbers, path, row_group_size=row_group_size, use_dictionary=False)
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=10_000):
            rows += batch.num_rows
            most = max(most, pa.total_allocated_bytes() - before)
    assert rows == _ROWS
    assert most < path.stat().st_size / 4
