"""An input that takes its default too often is one warning, measured on rows; a few odd rows are none."""

import logging

import numpy as np
import pytest

from teacher_cache.domain.request_scorer import _SHARE, FallbackWatch


def fell_back(**shares: float) -> dict[str, np.ndarray]:
    """Of 500 rows."""
    return {name: np.arange(500) < 500 * share for name, share in shares.items()}


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_a_share_above_the_allowed_one_is_one_warning_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watch = FallbackWatch(allowed=0.2)
    watch.add(fell_back(age=1.0, job=0.2))
    assert caplog.records == []  # too few rows
    watch.add(fell_back(age=0.0, job=0.2))
    (warned,) = lines(caplog, logging.WARNING)
    assert warned.startswith("teacher.inputs.age took its default in 50.0% of 1000 rows, more than 20.0%")
    assert (_SHARE.labels("age")._value.get(), _SHARE.labels("job")._value.get()) == (0.5, 0.2)
    for _ in range(4):
        watch.add(fell_back(age=0.5, job=0.0))
    assert len(lines(caplog, logging.WARNING)) == 1
    for share in (0.0, 0.0, 0.5, 0.5, *[0.0] * 19):  # back for 1,000 rows, above again, back for 9,500
        watch.add(fell_back(age=share, job=0.0))
    assert len(caplog.records) == 1
    watch.add(fell_back(age=0.0, job=0.0))
    assert lines(caplog, logging.INFO) == ["teacher.inputs.age took its default in at most 20.0% of 10000 rows"]
    for _ in range(2):
        watch.add(fell_back(age=0.5, job=0.0))
    assert len(lines(caplog, logging.WARNING)) == 2


def test_a_map_of_defaults_alone_has_nothing_to_watch(caplog: pytest.LogCaptureFixture) -> None:
    FallbackWatch(allowed=0.0).add({})
    assert caplog.records == []
