"""The options by which a user says what the columns of a log are: `--map` and `--label`."""

import click

from runtime.errors import InvalidInputError

map_option = click.option(
    "--map", "mapped", multiple=True, metavar="ROLE=COLUMN", help="user, item, time, impression or context is COLUMN."
)
label_option = click.option(
    "--label", "labels", multiple=True, metavar="'NAME = ...'", help="A task, such as 'liked = rating >= 4'."
)


def columns_given(mapped: tuple[str, ...]) -> dict[str, list[str]]:
    """Role -> columns; InvalidInputError for what is no ROLE=COLUMN."""
    given: dict[str, list[str]] = {}
    for text in mapped:
        role, equals, column = text.partition("=")
        role = role.strip()
        if not equals or (not column and role != "context"):
            raise InvalidInputError(f"--map {text!r}: must be ROLE=COLUMN, such as time=purchased_at")
        columns = given.setdefault(role, [])
        if column:
            columns += column.split(",") if role == "context" else [column]
    return given
