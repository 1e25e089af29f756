"""A smaller schedule that still fails, and how it reads."""

from collections.abc import Callable, Iterator

from tests.simulation.schedule import Schedule

_PARTS = ("faults", "troubles", "sent")


def shrunk(schedule: Schedule, fails: Callable[[Schedule], bool], most_runs: int = 400) -> Schedule:
    """The schedule without the parts that it also fails without; `fails` is asked `most_runs` times at most."""
    smallest, runs = schedule, 0
    for kind in _PARTS:
        size = max(1, len(getattr(smallest, kind)) // 2)
        while size:
            for smaller in _without(smallest, kind, size):
                if runs == most_runs:
                    return smallest
                runs += 1
                if fails(smaller):
                    smallest = smaller
                    break
            else:
                size //= 2
    return smallest


def told(schedule: Schedule, faults: list[str]) -> str:
    """A failed schedule in lines: its seed, what goes wrong in it, what is sent, and what does not hold."""
    parts = schedule._replace(sent=(), faults=(), troubles=())
    lines = [f"seed {schedule.seed}: {faults[0]}", f"  {parts}"]
    lines += [f"  {one}" for one in (*schedule.faults, *schedule.troubles)]
    lines += [f"  at {sent.at_ms:.0f} ms {sent.kind} {(sent.value or b'')[:120]!r}" for sent in schedule.sent]
    return "\n".join([*lines, *(f"  does not hold: {fault}" for fault in faults)])


def _without(schedule: Schedule, kind: str, size: int) -> Iterator[Schedule]:
    parts = getattr(schedule, kind)
    for start in range(0, len(parts), size):
        yield schedule._replace(**{kind: parts[:start] + parts[start + size :]})
