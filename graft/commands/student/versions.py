"""``graft student ls``, ``show``, ``promote``, ``rollback``, ``hold`` and ``name``.

They read versions and move their names in GRAFT_VERSIONS, also while a learner publishes there.
"""

import getpass
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graft.commands.options import echo_result, json_option, moment
from graft.process import begin
from student.evaluate.arms import CONTROL, STUDENT

if TYPE_CHECKING:
    from student.evaluate.skew import SkewReport
    from student.versions.manifest import ArmMetrics, Manifest, Metrics
    from student.versions.names import Move
    from student.versions.registry import Registry

_SHOWN_MOVES = 10
_SHOWN_FEATURES = 10
_AUCS = {"auc": "AUC", "auc_against_drawn": "AUC against drawn negatives"}

_why = click.option("--why", default="by hand", show_default=True, help="Stands in the history of names.")


@click.command
@json_option
@click.pass_obj
def ls(project_folder: Path | None, *, as_json: bool) -> None:
    """List the published versions, oldest first, with their names; the champion serves.

    The row of a version that cannot be read says why and what to do.

    Example: graft student ls
    """
    registry = _registry(project_folder)
    rows = _version_rows(registry)
    lines = [_version_line(row) for row in rows] or ["no versions yet; 'graft student train' publishes them"]
    if held := registry.names.held():
        lines.append(f"the champion is held by {held.by} since {moment(held.at_ms)}: {held.why}")
    echo_result(lines, rows, as_json=as_json)


@click.command
@click.argument("version", default="champion")
@click.option("--against", metavar="OLD", help="In what it differs from version OLD: what made it, and its metrics.")
@click.option("--skew", is_flag=True, help="How far served features differ from those of the examples, by the learner.")
@json_option
@click.pass_obj
def show(project_folder: Path | None, version: str, against: str | None, *, skew: bool, as_json: bool) -> None:
    """Print what VERSION (a name or a number; else the champion) has learnt, the gate's verdict, and moves of names.

    With --skew, which is of no version, it prints what the learner process has found since its start: how many served
    rows differ from their examples, the features' ages, and what has drifted. Rows are compared where a request names
    the impressions of its items and the scorer samples them (GRAFT_HTTP_SAMPLE).

    Example: graft student show candidate --against champion
    """
    registry = _registry(project_folder)
    if skew:
        _echo_skew(registry, as_json=as_json)
    elif against is not None:
        _echo_differences(registry, against, version, as_json=as_json)
    else:
        _echo_version(registry, version, as_json=as_json)


def _echo_version(registry: "Registry", version: str, *, as_json: bool) -> None:
    reference = registry.names.resolve(version)
    manifest = registry.load_manifest(reference.version)
    moves = registry.names.history()[-_SHOWN_MOVES:]
    found = {
        "version": str(reference),
        "names": _names_of(registry, reference.version),
        **_described(manifest),
        "metrics": {
            part: {task: {arm: _dumped(of) for arm, of in arms.items()} for task, arms in by_task.items()}
            for part, by_task in _parts(manifest).items()
        },
        "gate": manifest.gate and manifest.gate.model_dump(),
        "moves": [move.model_dump() for move in moves],
    }
    parent, teacher = manifest.parent or "none", manifest.teacher_version or "none"
    lines = [
        f"{found['version']}  {', '.join(found['names']) or 'no name'}",
        f"published {found['created_at']}, {manifest.examples:,} examples, parent {parent}, teacher {teacher}",
        *_metric_lines(manifest),
        *_gate_lines(manifest),
        "the last moves of names:",
        *(_move_line(move) for move in moves),
    ]
    echo_result(lines, found, as_json=as_json)


def _echo_differences(registry: "Registry", old: str, new: str, *, as_json: bool) -> None:
    flat = [_flat(registry.load_manifest(registry.names.resolve(version).version)) for version in (old, new)]
    rows = [
        {"what": what, "old": flat[0].get(what), "new": flat[1].get(what)}
        for what in dict.fromkeys([*flat[0], *flat[1]])
        if flat[0].get(what) != flat[1].get(what)
    ]
    lines = [f"{row['what']}: {_shown(row['old'])} -> {_shown(row['new'])}" for row in rows]
    echo_result(lines or ["the two are the same version"], rows, as_json=as_json)


def _echo_skew(registry: "Registry", *, as_json: bool) -> None:
    from student.evaluate.skew import load_report

    report = load_report(registry.metrics_folder)
    echo_result(list(_skew_lines(report)), report.model_dump(), as_json=as_json)


@click.command
@click.argument("version")
@_why
@json_option
@click.pass_obj
def promote(project_folder: Path | None, version: str, why: str, *, as_json: bool) -> None:
    """Let VERSION (a name or a number; `control` is the champion's control arm) serve, and hold it.

    What the learner publishes from then on becomes the candidate and nothing more, until 'graft student hold --end'.

    Example: graft student promote candidate --why "checked by hand"
    """
    registry = _registry(project_folder)
    reference = registry.names.resolve(version)
    _echo_move(registry.point("champion", reference, by=_who(), why=why, hold=True), as_json=as_json)


@click.command
@_why
@json_option
@click.pass_obj
def rollback(project_folder: Path | None, why: str, *, as_json: bool) -> None:
    """Let the champion before this one serve again, and hold it; once more goes one further back.

    Example: graft student rollback --why "labels were inverted since noon"
    """
    _echo_move(_registry(project_folder).roll_back(by=_who(), why=why), as_json=as_json)


@click.command
@click.option("--end", is_flag=True, help="Let the learner move the champion again; its next version may serve.")
@_why
@json_option
@click.pass_obj
def hold(project_folder: Path | None, why: str, *, end: bool, as_json: bool) -> None:
    """Let the champion serve on, whatever the learner publishes, until --end.

    Example: graft student hold --why "sale until Sunday"

    Example: graft student hold --end
    """
    _echo_move(_registry(project_folder).names.hold(by=_who(), why=why, hold=not end), as_json=as_json)


@click.command
@click.argument("name")
@click.argument("version", required=False)
@click.option("--remove", is_flag=True, help="Take the name away.")
@_why
@json_option
@click.pass_obj
def name(project_folder: Path | None, name: str, version: str | None, why: str, *, remove: bool, as_json: bool) -> None:
    """Give VERSION (a name or a number) a NAME of your own. It is spared from pruning, and /score knows it.

    Example: graft student name before-the-sale champion
    """
    if (version is None) != remove or name == "champion":
        raise click.UsageError(
            "a VERSION or --remove, and a NAME other than champion, which 'graft student promote' moves"
        )
    registry = _registry(project_folder)
    if version is None:
        move = registry.remove_name(name, by=_who(), why=why)
    else:
        move = registry.point(name, registry.names.resolve(version), by=_who(), why=why)
    _echo_move(move, as_json=as_json)


def _registry(project_folder: Path | None) -> "Registry":
    from student.versions.registry import Registry

    return Registry(begin(project_folder).settings.versions)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _version_rows(registry: "Registry") -> list[dict[str, Any]]:
    """One row per version, and one for a champion that is gone."""
    from student.versions.names import Reference

    champion, names = registry.champion(), registry.versions()
    gone = [champion] if champion and Reference(champion).version not in names else []
    return [_row(registry, version) for version in [*names, *gone]]


def _row(registry: "Registry", version: str) -> dict[str, Any]:
    from student.versions.version_folder import VersionError

    names = _names_of(registry, version)
    row: dict[str, Any] = {"version": version, "champion": "champion" in names, "names": names}
    try:
        return row | _described(registry.load_manifest(version))
    except VersionError as error:
        return row | {"fault": str(error)}


def _names_of(registry: "Registry", version: str) -> list[str]:
    from student.versions.names import Reference

    return [name for name, reference in registry.names.all().items() if Reference(reference).version == version]


def _described(manifest: "Manifest") -> dict[str, Any]:
    return {
        "created_at": moment(manifest.created_at_ms),
        "examples": manifest.examples,
        **{
            measure: {t: getattr(arms[STUDENT], measure) for t, arms in manifest.metrics.items() if STUDENT in arms}
            for measure in _AUCS
        },
    }


def _version_line(row: dict[str, Any]) -> str:
    names = f"  {', '.join(row['names'])}" if row["names"] else ""
    if "fault" in row:
        return f"{row['version']}  cannot be read{names}: {row['fault']}"
    auc = ", ".join(
        f"{words} {task} {value:.4f}"
        for measure, words in _AUCS.items()
        for task, value in row[measure].items()
        if value is not None
    )
    return f"{row['version']}  {row['created_at']}  {row['examples']:>9,} examples  {auc}{names}"


def _metric_lines(manifest: "Manifest") -> Iterator[str]:
    for part, by_task in _parts(manifest).items():
        for task, arms in by_task.items():
            for arm in (STUDENT, CONTROL):
                if arm in arms:
                    told = arms[arm].model_dump(exclude_none=True)
                    yield f"  {part} {task} {arm}: " + ", ".join(
                        f"{key} {_shown(value)}" for key, value in told.items()
                    )


def _gate_lines(manifest: "Manifest") -> Iterator[str]:
    from student.versions.gate import told

    if manifest.gate is not None:
        held = ", and the gate holds the champion" if manifest.gate.stopped else ""
        yield f"the gate's verdict before it was published: {manifest.gate.verdict}{held}"
        for comparison in manifest.gate.comparisons:
            yield f"  {told(comparison, manifest.gate)}"


def _flat(manifest: "Manifest") -> dict[str, Any]:
    """All that two versions may differ in, flat: key -> value."""
    described = manifest.model_dump(
        include={"version", "parent", "examples", "bootstrapped_rows", "teacher_version", "teacher_generation"}
    )
    described |= {"created_at": moment(manifest.created_at_ms), "spec": manifest.spec.spec_id}
    described |= {f"student.{key}": value for key, value in manifest.student.model_dump().items()}
    described |= {f"task {task.name}": task.model_dump_json() for task in manifest.tasks}
    for part, by_task in _parts(manifest).items():
        for task, arms in by_task.items():
            if STUDENT in arms:
                described |= {f"{part} {task} {key}": value for key, value in _dumped(arms[STUDENT]).items()}
    return described


def _skew_lines(report: "SkewReport") -> Iterator[str]:
    if (share := report.differing_share) is not None:
        yield f"{report.rows:,} served rows compared, {report.differing_rows:,} differ from their example ({share:.1%})"
    else:
        yield "no served row compared yet; requests must name 'impression_ids', and GRAFT_HTTP_SAMPLE be above 0"
    for feature, rows in list(report.differing.items())[:_SHOWN_FEATURES]:
        yield f"  {feature} differs in {rows:,}"
    for view, age in report.ages.items():
        mean, most = f"{age.mean_seconds:,.1f}", f"{age.most_seconds:,.1f}"
        yield f"  {view}: {mean} s old on average when it was served, {most} s at most"
    if report.drift:
        yield "population stability index between the last two windows of examples (above 0.25 is a large change):"
    for column, psi in list(report.drift.items())[:_SHOWN_FEATURES]:
        yield f"  {column} {psi:.3f}"


def _echo_move(move: "Move", *, as_json: bool) -> None:
    echo_result([_move_line(move)], move.model_dump(), as_json=as_json)


def _move_line(move: "Move") -> str:
    numbers = "".join(f", {key} {_shown(value)}" for key, value in move.numbers.items())
    held = "; the champion is held" if move.held else ""
    moved = f"{move.was or 'nothing'} -> {move.to or 'nothing'}" if move.to != move.was else f"{move.to} stays"
    return f"{moment(move.at_ms)}  {move.name}: {moved}, by {move.by}: {move.why}{numbers}{held}"


def _parts(manifest: "Manifest") -> "dict[str, Metrics]":
    return {"whole": manifest.metrics, **manifest.slices}


def _dumped(metrics: "ArmMetrics") -> dict[str, float]:
    """The defined ones."""
    return metrics.model_dump(exclude_none=True)


def _shown(value: Any) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
