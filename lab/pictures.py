"""The look that all pictures of the laboratory share: one colour for each arm, the same axes, PNG files."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runtime.folder import replacing
from student.evaluate.arms import CONTROL, ITEM_MEAN, STUDENT, TEACHER

INK, FAINT = "#22272e", "#d9dde3"
COLOURS = {STUDENT: "#0b6bcb", CONTROL: "#d9730d", TEACHER: "#6b4fbb", ITEM_MEAN: "#8a919c"}


def style(axes: Axes, title: str, x_label: str, grid: Literal["x", "y"] = "y") -> None:
    """Title, axis label, and a faint grid along one axis."""
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold")
    axes.set_xlabel(x_label, fontsize=9)
    axes.grid(axis=grid, color=FAINT, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8.5)


def save(figure: Figure, path: Path) -> None:
    """Write the figure to `path` as a PNG file, whole or not at all; GraftError when the disk refuses."""
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110, metadata={"Software": "graft"})
