"""What the documents name exists: files, commands, decision records."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
from pydantic import Field

from graft.cli import cli
from lab.study.grid import load_grid
from tests.scripts import script

_ROOT = Path(__file__).parents[1]
_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_DOCUMENTS = [*(_ROOT / name for name in _PAGES), *sorted((_ROOT / "docs").rglob("*.md"))]
_RECORDS = sorted((_ROOT / "docs/decisions").glob("[0-9]*.md"))
_ROOMS = ("runtime", "features", "stream", "teacher_cache", "student", "graft", "lab")
_PACKAGES = sorted(
    path.parent.relative_to(_ROOT)
    for room in _ROOMS
    for path in (_ROOT / room).rglob("__init__.py")
    if "build" not in path.parts
)
_OURS = re.compile(
    r"`((?:runtime|features|stream|teacher_cache|student|graft|lab|tests|benchmarks|fixtures|docs)/[\w./-]+)`"
)


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []
    assert [name for name in _OURS.findall(text) if not (_ROOT / name).exists()] == []


@pytest.mark.parametrize("package", _PACKAGES, ids=str)
def test_a_package_says_in_ten_lines_what_it_owns_its_doors_and_what_it_imports(package: Path) -> None:
    text = ast.get_docstring(ast.parse((_ROOT / package / "__init__.py").read_text("utf-8"))) or ""
    owns, doors, imports = re.split(r"\n+(?:Doors|Imports): ", text)
    assert owns
    assert len(text.splitlines()) <= 10
    names = re.findall(r"`(\w+)`", doors)
    assert [name for name in names if not _exists(_ROOT / package / name)] == []
    may_import = set(re.findall(r"`([\w.]+)`", imports))
    assert [name for name in may_import if not _exists(_ROOT / name.replace(".", "/"))] == []
    imported = {name for path in (_ROOT / package).rglob("*.py") for name in _imported(path)}
    own = ".".join(package.parts)
    assert sorted(name for name in imported if not _is_within(name, {own, *may_import})) == []


def _exists(module: Path) -> bool:
    return module.is_dir() or module.with_suffix(".py").exists()


def _imported(path: Path) -> Iterator[str]:
    """The packages of ours, and their modules where one is imported whole."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in _ROOMS:
            yield node.module


def _is_within(module: str, packages: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def test_decision_records_have_a_number_each_and_stand_in_the_index() -> None:
    index = (_ROOT / "docs/decisions/README.md").read_text("utf-8")
    assert len({record.name[:3] for record in _RECORDS}) == len(_RECORDS)
    for record in _RECORDS:
        assert record.read_text("utf-8").startswith(f"# {record.name[:3]}: ")
        assert f"[{record.name[:3]}]({record.name})" in index


def test_the_readme_lists_every_command() -> None:
    rows = re.findall(r"^\| (`graft .*?) \|", (_ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"([\w-]+)(?: [A-Z]+)?`", row)}
    assert set(_commands(cli)) == listed


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return script("docs/generate")


def test_the_page_of_the_configuration_is_what_make_docs_writes(generate: ModuleType) -> None:
    assert (_ROOT / "docs/configuration.md").read_text("utf-8") == generate.configuration()


def test_each_message_has_a_topic_and_stands_on_the_page_that_make_docs_writes() -> None:
    written, page = script("docs/messages"), (_ROOT / "docs/troubleshooting.md").read_text("utf-8")
    assert page == written.page()
    among = written.topics()
    assert {message.module for message in written.messages() if not written.topic_of(message.module, among)} == set()
    listed = set(page.splitlines())
    assert [message.text for message in written.messages() if f"- `{message.text}`" not in listed] == []


def test_the_page_of_a_grid_is_what_make_docs_writes_and_its_example_is_one(
    generate: ModuleType, tmp_path: Path
) -> None:
    page = (_ROOT / "docs/grid.md").read_text("utf-8")
    assert page == generate.grid()
    (tmp_path / "grid.toml").write_text(page.partition("```toml")[2].partition("```")[0])
    assert load_grid(str(tmp_path / "grid.toml")).thin == [0.1, 0.3]


def test_every_key_says_its_effect_and_when_one_sets_it(generate: ModuleType) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \| (.*) \|$", generate.configuration(), re.MULTILINE)
    assert len(rows) > 100
    assert [key for key, effect, when in rows if not effect or not when] == []


def test_a_key_of_every_table_and_a_variable_stand_on_the_page(generate: ModuleType) -> None:
    page = generate.configuration()
    assert "| `window_seconds` | number | s |  | > 0 |" in page
    assert '### `[teacher.inputs.NAME]` with kind = "lookup"' in page
    assert "### `[[features.aggregates]]`" in page
    assert "| `GRAFT_HTTP_PORT` | integer |  | `8080` | >= 1, <= 65535 |" in page
    assert "`folder`" not in page, "it is not a key of the file"


def test_a_field_says_in_words_what_is_allowed_in_place_of_its_pattern(generate: ModuleType) -> None:
    words = Field(default="a", pattern=r"^[a-z]+$", json_schema_extra={"allowed": "lower-case letters"})
    assert generate._allowed(words) == "lower-case letters"
    assert "`^" not in generate.configuration() + generate.grid()
    assert generate._allowed(Field(default=1, ge=0, lt=5)) == ">= 0, < 5"


def _commands(group: click.Group) -> Iterator[str]:
    """The last word of every command that does something."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _commands(command)
        else:
            yield name
