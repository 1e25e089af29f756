"""Makes a demo's pair: its project folder, its teacher, and the demo's own pace."""

from pathlib import Path

from graft.project import FILE_NAME
from lab.demo.data import Data
from lab.demo.plan import Plan
from lab.demo.toml_table import Scalar, with_values
from lab.dev.preparation import Command


def make_pair(data: Data, plan: Plan) -> list[Command]:
    """The commands that write the project folder ``pair`` and train its teacher, run in its parent folder."""
    limit = ("--events", str(plan.impressions)) if plan.impressions else ()
    own = ("--movielens", str(data.own_copy)) if data.own_copy else ()
    return [
        Command(("pair", "make", data.name, "pair", *own, *limit), shows_progress=True),
        Command(("pair", "train-teacher", "pair"), shows_progress=True),
    ]


def set_pace(folder: Path, plan: Plan) -> None:
    """Write the demo's own pace into the project file: a short run needs more frequent versions."""
    path = folder / FILE_NAME
    text = path.read_text(encoding="utf-8")
    pace: dict[str, dict[str, Scalar]] = {
        "publish": {"every_seconds": plan.publish_seconds},
        "stream": {"idle_seconds": plan.idle_seconds},
    }
    for table, values in pace.items():
        text = with_values(text, table, values)
    path.write_text(text, encoding="utf-8")
