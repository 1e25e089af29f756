"""What source and target share, as a table for people."""

from graft.fit.prepare import Prepared
from graft.fit.shared import Shared

HEAD = ("feature", "input", "as", "known", "why")


def shared_rows(prepared: Prepared) -> list[list[str]]:
    """One row a feature of the target: the input that it feeds, the share of its values that the source knows, why."""
    rows = [[one.feature.name, one.input.name, _form(one), f"{one.known:.0%}", one.why] for one in prepared.shared]
    return rows + [[one.name, "-", "", "", one.why] for one in prepared.unshared]


def _form(one: Shared) -> str:
    if one.codes:
        return f"{len(one.codes):,} codes"
    return "number" if one.input.width == 1 and one.feature.kind == "number" else f"{one.input.width} numbers"
