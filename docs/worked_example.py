"""Runs the commands of docs/worked-example.md and writes their outputs and plots anew; takes a quarter of an hour.

Run: python docs/worked_example.py. Commands are the lines that begin with $ in the page's console blocks.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib.figure import Figure

from lab.demo.report import plot_auc
from lab.page import COLOURS, save, style
from student.evaluate.arms import CONTROL, STUDENT
from student.evaluate.history import read_history

_PAGE = Path(__file__).parent / "worked-example.md"
_PLOTS = Path(__file__).parent / "worked-example"
_BLOCK = re.compile(r"```console\n\$ (.*?)\n(.*?)```", re.DOTALL)
_MOST_LINES = 60
_LEARNT = re.compile(r"^all [\d,]+ events are read", re.MULTILINE)


def main() -> None:
    """Run all of them in a new folder, in their order."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        page = _BLOCK.sub(lambda block: _ran(work, block[1]), _PAGE.read_text("utf-8"))
        _PAGE.write_text(page, "utf-8")
        _plot_look(work)
        points = read_history(work / "shop" / ".graft-dev" / "run" / "versions" / "metrics")
        plot_auc(_PLOTS / "auc.png", "liked", points, [])


def _ran(work: Path, command: str) -> str:
    """The block with what the command says now."""
    print(f"$ {command}", flush=True)
    began = time.monotonic()
    if command.startswith("curl"):
        command = (work / "asked.txt").read_text("utf-8")
    said = _developed(work, command) if command.startswith("graft dev") else _said(work, command)
    lines = said.replace(f"{work}/", "").rstrip().splitlines()
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES // 2], "...", *lines[-_MOST_LINES // 2 :]]
    if (seconds := time.monotonic() - began) > 1:
        lines.append(f"({seconds:.0f} s)")
    return "```console\n$ " + "\n".join([command, *lines]) + "\n```"


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "160"}


def _said(work: Path, command: str) -> str:
    if command.startswith("curl"):
        return (work / "scores.json").read_text("utf-8")
    done = subprocess.run(  # noqa: S602 - the page's own commands
        command, shell=True, cwd=work, env=_environment(), capture_output=True, text=True, check=True
    )
    return done.stdout


def _developed(work: Path, command: str) -> str:
    """Run it until all is learnt, ask for scores as it says, and stop it; what it said but for the passing lines."""
    said = work / "said.txt"
    with said.open("wb") as file:
        argv = command.split()
        dev = subprocess.Popen(argv, cwd=work, env=_environment(), stdout=file, stderr=file)  # noqa: S603 - the same
        while not _LEARNT.search(said.read_text("utf-8")):
            if dev.poll() is not None:
                raise SystemExit(said.read_text("utf-8"))
            time.sleep(1)
        text = said.read_text("utf-8")
        ask = next(line for line in text.splitlines() if line.startswith("curl "))
        scores = subprocess.run(ask, shell=True, capture_output=True, text=True, check=True).stdout  # noqa: S602
        (work / "scores.json").write_text(scores, "utf-8")
        (work / "asked.txt").write_text(ask, "utf-8")
        dev.send_signal(signal.SIGINT)
        dev.wait()
    passing = [at for at, line in enumerate(text.splitlines()) if re.match(r"\[ *\d+ s\]", line)]
    return "\n".join(line for at, line in enumerate(text.splitlines()) if at not in passing[1:-1])


def _plot_look(work: Path) -> None:
    """What `graft look` says by tenth of the log."""
    told = subprocess.run(
        ["graft", "look", "movielens/ratings.csv", "--json"],  # noqa: S607
        cwd=work,
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    figures = json.loads(told)
    figures = figures.get("figures", figures)
    figure = Figure(figsize=(11, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, entity, colour in ((left, "users", COLOURS[STUDENT]), (right, "items", COLOURS[CONTROL])):
        shares = [100 * share for share in figures[entity]["unseen_by_tenth"]]
        axes.bar(range(1, len(shares) + 1), shares, color=colour)
        style(axes, f"% of rows whose {entity[:-1]} nobody has seen", "tenth of the log")
    save(figure, _PLOTS / "unseen.png")


if __name__ == "__main__":
    main()
