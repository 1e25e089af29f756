"""The learner and the scorer do not pay for Feast, nor the stream for torch."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "spec",
        "contract",
        "aggregates",
        "config",
        "online.reader",
        "online.async_reader",
        "online.redis_layout",
        "repo.batch_tables",
        "repo.compiler",
        "repo.push_log",
    ],
)
def test_a_module_of_the_request_path_imports_neither_feast_nor_pandas_nor_torch(module):
    program = f"import sys, features.{module}; print(*sorted({{'feast', 'pandas', 'torch'}} & set(sys.modules)))"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert ran.stdout.strip() == ""


def test_feast_comes_without_torch_which_can_still_be_imported():
    program = (
        "import sys, features.repo.feast; from importlib.util import find_spec;"
        "print('feast' in sys.modules, 'torch' in sys.modules, find_spec('torch') is not None)"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert ran.stdout.split() == ["True", "False", "True"]


def test_feast_does_not_let_python_show_what_other_libraries_are_told_is_deprecated():
    """As kafka-python on Python 3.11 and 3.12: four lines above what a command says."""
    library = "import warnings; warnings.warn('old', DeprecationWarning)"
    program = f"import features.repo.feast; exec({library!r}, {{'__name__': 'library'}})"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert ran.stderr == ""
