"""Numbers that are called alike and are of another unit are no input of the teacher."""

import pytest

from tests.graft.fit.conftest import SECOND, write_domain


@pytest.mark.parametrize(("times", "is_shared"), [(1, True), (60_000, False), (0.001, False)])
def test_numbers_of_another_unit_are_no_input_even_where_both_begin_at_0(graft, tmp_path, target, times, is_shared):
    source = write_domain(tmp_path / "sister", rows=900, users=40, start=SECOND, seed=2)
    films = source.movies.read_text().splitlines()
    rows = [line.rpartition(",") for line in films[1:]]
    changed = [f"{row},{times * float(minutes):g}" for row, _, minutes in rows]
    changed[0] = f"{rows[0][0]},0"
    source.movies.write_text("\n".join([films[0], *changed]) + "\n")
    result = graft(
        "init", tmp_path / "shop", *target.options(), *source.options("--source-")
    )  # not --yes: a table alone
    told = next(line for line in result.output.splitlines() if line.startswith("item_profile:length"))
    assert ("not the same unit?" in told) is not is_shared
    assert "80 to 139 here, 0 to " in told
