"""Files of tokens as editors and operators leave them."""

import os
from pathlib import Path

import pytest

from runtime.errors import ConfigurationError
from student.serve import tokens as tokens_module
from student.serve.tokens import Tokens
from tests.student.serve.test_limits import FIRST, SECOND


@pytest.fixture(autouse=True)
def _looks_at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_LOOK_SECONDS", 0.0)


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"\xef\xbb\xbf" + f"{FIRST}\r\n{SECOND}\r\n".encode())
    tokens = Tokens(path)
    assert tokens.allow(f"Bearer {FIRST}")
    assert tokens.allow(f"Bearer {SECOND}")


def test_a_token_that_no_header_can_say_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{FIRST}\n{'ä' * 16}\n")
    with pytest.raises(ConfigurationError, match="tokens of at least 16 ASCII characters"):
        Tokens(path)


def test_a_file_is_read_again_after_it_could_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "tokens", tokens_module._read
    path.write_text(FIRST)
    tokens = Tokens(path)
    path.write_text(f"{SECOND}\n")

    def refused(_path: Path) -> list[bytes]:
        raise ConfigurationError(["no right to read it"])

    monkeypatch.setattr(tokens_module, "_read", refused)  # as for a file without the right to read; root reads any
    assert tokens.allow(f"Bearer {FIRST}")
    monkeypatch.setattr(tokens_module, "_read", read)
    path.chmod(0o644)
    assert tokens.allow(f"Bearer {SECOND}")
    assert not tokens.allow(f"Bearer {FIRST}")


def test_a_file_that_is_written_in_two_pieces_at_one_time_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(FIRST)
    tokens = Tokens(path)
    path.write_text(SECOND)
    told = path.stat()
    assert tokens.allow(f"Bearer {SECOND}")
    with path.open("a") as file:
        file.write(f"\n{FIRST}\n")
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert tokens.allow(f"Bearer {FIRST}")
