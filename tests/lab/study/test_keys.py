"""What a study keeps is found again, and only where it is still true."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from graft.project import Project
from lab.study.grid import Grid, TeacherChange, Variant
from lab.study.learners.plan import Cell, Keys, cells_of
from lab.study.log.log_in_memory import log_key
from lab.study.log.memory_store import Sources
from lab.study.log.study_log import StudyLog, read_log, write_log
from runtime.errors import ConfigurationError, InvalidInputError
from tests.lab.study.conftest import Pair


@pytest.fixture
def folder(pair: Pair, tmp_path: Path) -> Path:
    """A copy of the pair that a test may change."""
    return Path(shutil.copytree(pair.project.folder, tmp_path / "pair"))


def _cells(project: Project, pair: Pair, *variants: Variant) -> list[Cell]:
    cells = cells_of(Grid(seeds=1, baseline=variants[0].name, variants=list(variants)), project, pair.spec)
    return [cell for cell in cells if not cell.is_plain]


def _kept(pair: Pair, project: Project, variant: Variant) -> tuple[str, str, str]:
    """The keys of logits, bootstrap and result."""
    keys, (cell,) = Keys(pair.log.first(20), pair.day_zero), _cells(project, pair, variant)
    return keys.logits(cell), keys.day_zero(cell), keys.result(cell)


def test_cells_that_learn_the_same_share_a_key(pair: Pair) -> None:
    same, other = Variant(name="same", says="words"), Variant(name="other", heads={"weight": 2.0})
    nothing = Variant(name="nothing", teacher=TeacherChange(permuted=False))
    permuted = Variant(name="permuted", teacher=TeacherChange(permuted=True))
    variants = [Variant(name="plain"), same, nothing, other, permuted, Variant(name="boot", bootstrap=True)]
    keys = Keys(pair.log.first(20), pair.day_zero)
    found = [keys.result(cell) for cell in _cells(pair.project, pair, *variants)]
    assert found[0] == found[1] == found[2]
    assert len(set(found)) == 4
    assert Keys(pair.log.first(19), pair.day_zero).result(_cells(pair.project, pair, same)[0]) not in found


@pytest.mark.parametrize("changed", ["teacher.onnx", "codes.json", "inputs"])
def test_another_teacher_has_other_logits_day_zero_rows_and_results(pair: Pair, folder: Path, changed: str) -> None:
    (folder / "codes.json").write_text(json.dumps({"pop": 1}))
    lookup = {"kind": "lookup", "feature": "track:style", "file": "codes.json", "default": 0}
    project = _with_input(pair.project, folder, lookup)
    variant = Variant(name="v", bootstrap=True)
    before = _kept(pair, project, variant)
    assert _kept(pair, project, variant) == before
    if changed == "inputs":
        project = _with_input(pair.project, folder, {**lookup, "default": 1})
    else:
        (folder / changed).write_bytes((folder / changed).read_bytes() + b" ")
    assert not {*_kept(pair, project, variant)} & {*before}


def test_a_teacher_that_is_not_there_is_named_with_its_variant(pair: Pair) -> None:
    teacher = pair.project.teacher.model_copy(update={"onnx": Path("nowhere.onnx")})
    project = pair.project.model_copy(update={"teacher": teacher})
    with pytest.raises(ConfigurationError, match=r"variant v: teacher: .*nowhere.onnx: cannot be read: No such"):
        _kept(pair, project, Variant(name="v"))


@pytest.mark.parametrize("field", ["labels", "user_id", "item_id", "event_time_ms", "features", "context"])
def test_a_log_is_named_by_all_of_every_example(pair: Pair, field: str) -> None:
    records = list(pair.log.first(3).records)
    other = getattr(pair.log.examples[500], field)
    assert getattr(records[1].example, field) != other or field == "context"
    other = {"device": "boat"} if field == "context" else other
    records[1] = records[1]._replace(example=records[1].example.model_copy(update={field: other}))
    assert StudyLog(pair.spec, records).key != pair.log.first(3).key


def test_a_log_of_ones_own_is_named_by_events_tables_and_all_that_joins_them(pair: Pair, folder: Path) -> None:
    def key(project: Project, events: Path, sources: Sources) -> str:
        return log_key(project, pair.spec, sources, events)

    project, sources = pair.project, pair.day_zero.sources
    before, events = key(project, pair.events, sources), folder / "events.jsonl"
    assert key(project, events, sources) == before  # the same content elsewhere
    events.write_text(events.read_text().replace("phone", "boat", 1))
    longer = [task.model_copy(update={"window_seconds": 11}) for task in project.tasks]
    later = project.stream.model_copy(update={"dedup_seconds": 1})
    table = folder / "track.parquet"
    view, (path, *more) = next((view, found) for view, found in sources.tables.items() if "activity" not in view)
    table.write_bytes(path.read_bytes() + b" ")
    others = [
        key(project, events, sources),
        key(project.model_copy(update={"tasks": longer}), pair.events, sources),
        key(project.model_copy(update={"stream": later}), pair.events, sources),
        key(project, pair.events, sources._replace(tables={**sources.tables, view: (table, *more)})),
    ]
    assert len({before, *others}) == 5


def test_a_log_that_was_interrupted_is_not_there(pair: Pair, tmp_path: Path) -> None:
    def records() -> object:
        yield from pair.log.first(5).records
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_log(tmp_path / "log" / "a", records())
    assert not any((tmp_path / "log").iterdir())
    write_log(tmp_path / "log" / "a", pair.log.first(5).records)
    assert read_log(tmp_path / "log" / "a", pair.spec).key == pair.log.first(5).key


def test_of_a_long_log_no_more_is_read_than_the_study_may_know(pair: Pair, tmp_path: Path) -> None:
    write_log(tmp_path / "log", pair.log.records)
    assert read_log(tmp_path / "log", pair.spec, count=17).key == pair.log.first(17).key
    assert read_log(tmp_path / "log", pair.spec, count=10**7).key == pair.log.key


def test_a_log_without_an_example_is_an_error(pair: Pair, tmp_path: Path) -> None:
    write_log(tmp_path / "log", [])
    with pytest.raises(InvalidInputError, match=r"log: no examples: 'graft stream archive' has not written"):
        read_log(tmp_path / "log", pair.spec)


def _with_input(project: Project, folder: Path, mapped: dict[str, object]) -> Project:
    """The project in another folder, with another mapping of the style."""
    table = project.model_dump(exclude_unset=True)
    table["teacher"]["inputs"]["style_code"] = mapped
    return Project.model_validate({**table, "folder": folder})


def test_a_share_of_the_users_and_a_delay_have_keys_of_their_own(pair: Pair) -> None:
    def found(**values: Any) -> set[str]:
        grid = Grid(seeds=1, baseline="v", variants=[Variant(name="v")], **values)
        return {keys.result(cell) for cell in cells_of(grid, pair.project, pair.spec)}

    keys = Keys(pair.log.first(20), pair.day_zero)
    plain = found()
    assert len(plain) == 2
    assert found(label_delay_seconds=1) == plain  # the window closes later
    assert not found(label_delay_seconds=3600) & plain
    assert len(found(thin=[0.1, 0.5], thin_draws=2) - plain) == 8
