"""The pair of the study's tests."""

from tests.lab.study.conftest import pair

__all__ = ("pair",)
