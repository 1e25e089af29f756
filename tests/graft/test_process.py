import re
import socket

import pytest

from graft.process import Process
from graft.settings import Settings


def test_a_process_without_a_name_has_its_hosts_which_a_restart_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "3f2a9c")
    assert Process(Settings()).instance == Process(Settings()).instance == "3f2a9c"
    monkeypatch.setattr(socket, "gethostname", lambda: "77b01d")  # another container
    assert Process(Settings()).instance == "77b01d"


@pytest.mark.parametrize("host", ["büro pc/7", "a" * 300, "a.b-c_d"])
def test_a_name_that_kafka_would_refuse_is_made_one_that_a_setting_may_have(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", Process(Settings()).instance)


def test_a_name_that_is_given_is_taken() -> None:
    assert Process(Settings(instance="b")).instance == "b"
