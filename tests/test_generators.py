"""No generator holds what must be closed: one that is dropped half read closes it whenever Python collects it.

What a generator has left open then fails another test, or keeps a connection for as long as a traceback lives.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_ROOMS = ("features", "graft", "lab", "runtime", "stream", "student", "teacher_cache")
_HOLDS_NOTHING = ("connection.reaching(", "reaching(", "np.errstate(")
"""Blocks that translate errors or set a mode."""

_CLOSED_WITH_IT = {
    "example_file._batches": "Arrow's file has no Python object that would warn, and ends with the generator",
    "row_file.share_of_rows": "as that",
    "compute.made_ahead": "a thread that ends by itself",
    "tables._csv": "the file of one pass, which its only reader ends",
    "tables._json_lines": "as that",
}


@pytest.mark.parametrize("room", _ROOMS)
def test_no_generator_of_a_room_holds_what_must_be_closed(room):
    paths = [path for path in (_ROOT / room).rglob("*.py") if "feature_repo" not in path.parts]
    assert paths
    assert [f"{name}: {held}" for path in paths for name, held in _holding(path) if name not in _CLOSED_WITH_IT] == []


def test_a_generator_that_holds_something_is_known(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def lines(path):\n    with path.open() as file:\n        yield from file\n")
    assert _holding(path) == [("module.lines", "path.open()")]


def _holding(path: Path) -> list[tuple[str, str]]:
    """Each generator that yields within a block that ends with a closing, and what the block holds."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    return [
        (f"{path.stem}.{function.name}", held)
        for function in functions
        if not any("contextmanager" in ast.unparse(decorator) for decorator in function.decorator_list)
        for held in sorted(set(_held(function, [])))
    ]


def _held(node: ast.AST, held: list[str]) -> Iterator[str]:
    """What is held where the function of `node` yields; `held` is what the blocks around it hold."""
    for child in ast.iter_child_nodes(node):
        within = held
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.With):
            contexts = [ast.unparse(item.context_expr) for item in child.items]
            within = [*held, *(context for context in contexts if not context.startswith(_HOLDS_NOTHING))]
        elif isinstance(child, ast.Try) and child.finalbody:
            within = [*held, ast.unparse(child.finalbody[0])]
        elif isinstance(child, ast.Yield | ast.YieldFrom):
            yield from held
        yield from _held(child, within)
