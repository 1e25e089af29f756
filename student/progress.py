"""progress.jsonl: the progressive metrics against the examples learnt, a line every `EVERY_EXAMPLES`."""

import json
from pathlib import Path

from student.evaluation import Metrics, ProgressiveEvaluation

EVERY_EXAMPLES = 500


class ProgressLog:
    """``{"examples": n, "metrics": {task: {arm: {...}}}, "recent": the same over the last 2,000}`` a line.

    A line is written at the first step that reaches a multiple of `EVERY_EXAMPLES`.
    """

    def __init__(self, path: Path, examples: int) -> None:
        """Go on after `examples`: lines beyond them, which a killed learner wrote, are dropped."""
        self._path = path
        self._last = examples // EVERY_EXAMPLES
        kept = [line for line in _lines(path) if _examples(line) <= examples]
        temporary = path.with_name(f".{path.name}")
        temporary.write_text("".join(kept), "utf-8")
        temporary.replace(path)

    def update(self, examples: int, evaluation: ProgressiveEvaluation) -> None:
        """Write a line when one is due."""
        if examples // EVERY_EXAMPLES == self._last:
            return
        self._last = examples // EVERY_EXAMPLES
        line = {
            "examples": examples,
            "metrics": _plain(evaluation.whole()),
            "recent": _plain(evaluation.recent()),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _plain(metrics: Metrics) -> dict[str, dict[str, dict[str, float | None]]]:
    return {task: {arm: m.model_dump() for arm, m in arms.items()} for task, arms in metrics.items()}


def _lines(path: Path) -> list[str]:
    """Whole lines; one cut short by a kill has no end."""
    if not path.exists():
        return []
    return [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _examples(line: str) -> int:
    return int(json.loads(line)["examples"])
