"""A grid as data: variants of one project, each with its seeds. Read from a TOML file."""

import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from graft.faults import faults_of
from graft.project import Project
from graft.removed import without_removed
from runtime.errors import ConfigurationError
from runtime.frozen_model import FrozenModel

SHIPPED = ("headline",)
"""The grids that come with graft."""

Tables = dict[str, dict[str, Any]]
"""Values by table and key, as they stand in graft.toml."""


PLAIN_VARIANT = "plain_models"
"""The name of the cells in which models without a student learn the log."""

_MEASURED = "remove the line; what it measured stands in docs/decisions/028-what-the-study-measured.md"
REMOVED = {
    **dict.fromkeys(("tables", "traffic", "label_delay_rows"), "remove the line"),
    **{f"variants.*.{key}": _MEASURED for key in ("direct", "hidden", "priors", "guarded", "head")},
    **{f"variants.*.{key}": "remove the line: the grid's holds for all variants" for key in ("events", "traffic")},
    **{f"variants.*.teacher.{key}": _MEASURED for key in ("onnx", "noise", "scale", "shift")},
}
"""By key of a grid of an earlier release what to do, as `graft.removed` has it for graft.toml."""


class TeacherChange(FrozenModel):
    """What is done to the teacher before anyone sees its logits; nothing by default."""

    defaulted: list[str] = Field(default=[], description="teacher inputs that have their default in every row")
    permuted: bool = Field(default=False, description="each row gets the logits of another row, drawn at random")


class Variant(FrozenModel):
    """One row of a table: the project's graft.toml with some values changed."""

    name: str = Field(
        description="the variant's name in tables",
        pattern=r"^[a-z][a-z0-9_]*$",
        json_schema_extra={"allowed": "a lower-case letter, then lower-case letters, digits and '_'"},
    )
    says: str = Field(default="", description="what the variant is, in words for the tables")
    question: str = Field(default="", description="the heading of the table that shows the variant")
    teacher: TeacherChange = TeacherChange()
    teacher_as_input: bool = Field(
        default=False,
        description="the teacher's logits are dense inputs of both arms; only the student has profiles and mean logits",
    )
    bootstrap: bool = Field(default=False, description="the student starts from 'graft student bootstrap'")
    without: list[str] = Field(default=[], description="teacher tasks that are not distilled; '*': all")
    heads: dict[str, Any] = Field(default={}, description="values that replace those of every [[distillation]] table")
    tables: Tables = Field(default={}, description="values that replace those of other tables: student, ...")
    seeds: int | None = Field(default=None, ge=1, description="overrides the grid's")

    @model_validator(mode="after")
    def _distils_nothing_where_the_teacher_is_an_input(self) -> Self:
        if self.teacher_as_input and "*" not in self.without:
            raise ValueError(
                f"without must be ['*'] with teacher_as_input, got {self.without}: the log alone has these inputs"
            )
        return self

    def project(self, base: Project, seed: int) -> Project:
        """`base` with this variant's values; ConfigurationError with all that does not fit."""
        faults = list(self._unknown_tasks(base))
        table = base.model_dump(exclude_unset=True)
        for changed in (self.tables, {"student": {"seed": seed}}):
            for name, values in changed.items():
                table[name] = {**table.get(name, {}), **values}
        table["distillation"] = [
            {**row, **self.heads}
            for row in table.get("distillation", [])
            if row["teacher_task"] not in self.without and "*" not in self.without
        ]
        try:
            project = Project.model_validate({**table, "folder": base.folder})
        except ValidationError as error:
            faults += faults_of(error, Project)
        if faults:
            raise ConfigurationError(faults)
        return project

    def _unknown_tasks(self, base: Project) -> Iterator[str]:
        """Each value for a teacher task that this project does not distil; it would change nothing."""
        distilled = [row.teacher_task for row in base.distillation]
        for name in self.without:
            if name not in distilled and name != "*":
                yield f"without: no distilled teacher task {name!r}; there are {', '.join(distilled) or 'none'}"


class Grid(FrozenModel):
    """A study learns every variant with every seed; seeds are 1, 2, 3, ..."""

    events: int | None = Field(
        default=None, ge=1, description="how many of the log's first examples are learnt; all unless set"
    )
    log_events: int | None = Field(
        default=None, ge=1, description="how many of the log's first examples the study knows at all; all unless set"
    )
    seeds: int = Field(default=10, ge=1, description="learners of each variant; below 5 there is no interval")
    baseline: str = Field(description="the variant whose student minus control is the headline")
    windows: list[int] = Field(
        default=[0, 2_000, 5_000, 10_000, 20_000],
        min_length=1,
        description="edges of the windows, in examples; the examples after the last edge are one more window",
    )
    label_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        description="how long after its impression a served prediction knows a label, but never before the "
        "longest attribution window closes",
    )
    thin: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        default=[],
        description="shares of the users; the baseline and the plain models learn the log of each share, too",
        json_schema_extra={"allowed": "each above 0 and below 1"},
    )
    thin_draws: int = Field(default=5, ge=1, description="how often the users of a share are drawn: seeds 1, 2, 3, ...")
    variants: list[Variant] = Field(min_length=1)

    def limited(self, seeds: int | None, events: int | None, label_delay_seconds: float | None) -> "Grid":
        """The grid with so many seeds of every variant, so many examples, that delay; None leaves the grid's own."""
        update: dict[str, Any] = {}
        if events:
            update["events"] = events
        if seeds:
            update |= {"seeds": seeds, "thin_draws": seeds}
            update["variants"] = [variant.model_copy(update={"seeds": None}) for variant in self.variants]
        if label_delay_seconds is not None:
            update["label_delay_seconds"] = label_delay_seconds
        return self.model_copy(update=update)

    @property
    def needed_events(self) -> int | None:
        """How many of the first examples of the log any learner needs; None if all.

        A share of the users is of the whole log.
        """
        if self.events is None or self.thin:
            return self.log_events
        return min(self.events, self.log_events or sys.maxsize)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [variant.name for variant in self.variants]
        if PLAIN_VARIANT in names:
            raise ValueError(f"{PLAIN_VARIANT!r} is the name of what every study has beside its variants")
        if len(set(names)) < len(names):
            raise ValueError(f"the names of variants must differ, got {', '.join(names)}")
        if self.baseline not in names:
            raise ValueError(f"baseline must be one of {', '.join(names)}, got {self.baseline!r}")
        if any(high <= low for low, high in pairwise(self.windows)):
            raise ValueError(f"windows must grow, got {self.windows}")
        return self


def load_grid(name: str) -> Grid:
    """The grid of that file, or of that name among graft's own; ConfigurationError with every fault."""
    path = Path(name)
    shipped = files("lab.study") / "grids" / f"{name}.toml"
    try:
        text = path.read_text("utf-8") if path.suffix == ".toml" else shipped.read_text("utf-8")
        kept, removed = without_removed(tomllib.loads(text), REMOVED)
        if removed:
            raise ConfigurationError([f"{name}: {fault}" for fault in removed.values()])
        return Grid.model_validate(kept)
    except FileNotFoundError:
        raise ConfigurationError(
            [f"--grid: no such file or grid, got {name!r}; graft has {', '.join(SHIPPED)}"]
        ) from None
    except OSError as error:
        raise ConfigurationError([f"{name}: cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{name}: not valid TOML: {error}"]) from None
    except ValidationError as error:
        raise ConfigurationError([f"{name}: {fault}" for fault in faults_of(error, Grid)]) from None
