"""What we use of Feast, and how it is imported: in 1 s and 190 MB, where `import feast` takes 5 s and 380 MB.

Three things are left out. Feast decorates its classes with typeguard's `typechecked`, which compiles the whole module
again for each method: 3 s at each start of a process. Here the constructors alone are checked, which are what a feature
repository calls. Feast imports torch, which its `to_tensor` alone needs. And it lets Python show the deprecation
warnings of all libraries, which are for those who work on them.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import numpy as np  # noqa: F401 - before Feast: its own filters of warnings stay
import typeguard  # one of Feast's own requirements

_C = TypeVar("_C", bound=type)
_typechecked = typeguard.typechecked


def _with_checked_constructor(decorated: _C) -> _C:
    """The class, for `typechecked`; Feast decorates nothing but classes."""
    constructor: Any = vars(decorated).get("__init__")
    if constructor and not hasattr(constructor, "__wrapped__"):  # one that typeguard cannot check
        decorated.__init__ = _typechecked(constructor)  # type: ignore[misc]
    return decorated


@contextmanager
def _at_less_cost() -> Iterator[None]:
    has_torch = "torch" in sys.modules
    if not has_torch:
        sys.modules["torch"] = None  # type: ignore[assignment] # to Feast it is not installed
    try:
        with mock.patch.object(typeguard, "typechecked", _with_checked_constructor), warnings.catch_warnings():
            yield
    finally:
        if not has_torch:
            del sys.modules["torch"]


with _at_less_cost():
    from feast import FeatureStore, FeatureView, FileSource, PushSource
    from feast.data_source import PushMode
    from feast.repo_config import RepoConfig, load_repo_config
    from feast.repo_contents import RepoContents
    from feast.repo_operations import extract_objects_for_apply_delete, get_repo_files, parse_repo

__all__ = [
    "FeatureStore",
    "FeatureView",
    "FileSource",
    "PushMode",
    "PushSource",
    "RepoConfig",
    "RepoContents",
    "extract_objects_for_apply_delete",
    "get_repo_files",
    "load_repo_config",
    "parse_repo",
]
