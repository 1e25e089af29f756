"""One contract for a process alone and for ranks that meet by gloo."""

import signal
import subprocess

import pytest
import torch

from student.learn.exchange import ALONE, nearest_device, open_exchange
from tests.student.learn.exchange_contract import check
from tests.student.learn.ranks import all_end_well, start_ranks

CONTRACT = "tests.student.learn.exchange_contract"


def test_a_process_alone_keeps_the_contract() -> None:
    check(ALONE)


@pytest.mark.parametrize("count", [2, 3])
def test_ranks_keep_the_contract(count: int) -> None:
    all_end_well(start_ranks(count, [CONTRACT, "contract"]), 60)


def test_a_rank_that_is_killed_ends_the_others_with_an_error_that_says_so() -> None:
    first, second = start_ranks(2, [CONTRACT, "wait"], stderr=subprocess.PIPE)
    assert first.stderr is not None
    assert second.stderr is not None
    with first.stderr, second.stderr:
        assert b"met" in first.stderr.readline()
        second.kill()
        assert second.wait(10) == -signal.SIGKILL
        assert first.wait(20) == 1
        said = first.stderr.read().decode()
    assert "error: rank 0 of 2: another rank ended or did not answer within 300 s; its log says why (" in said


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_a_process_that_torchrun_did_not_start_or_started_alone_is_alone(environment: dict[str, str]) -> None:
    with open_exchange(environment) as exchange:
        assert exchange is ALONE
    assert not torch.distributed.is_initialized()


def test_a_rank_takes_its_own_gpu_and_the_cpu_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert nearest_device({"LOCAL_RANK": "1"}) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(nearest_device({"LOCAL_RANK": rank})) for rank in "0123"] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert nearest_device({}) == torch.device("cuda:0")
