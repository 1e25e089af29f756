"""Batch scorer and backfill under kill -9; `python -m tests.teacher_cache.kills --count N` does more of the same."""

import random

import pytest

from tests.teacher_cache.kills import KINDS, fault_of, killed


@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_any_call_lose_nothing_and_cost_a_batch_each(kind, save_onnx, config, spec, redis_url, tmp_path):
    save_onnx()
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    outcome = killed(kind, tmp_path, redis_url, 1, random.Random(3))
    assert outcome.kills == 1
    assert fault_of(tmp_path, outcome) is None
