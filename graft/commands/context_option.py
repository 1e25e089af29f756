"""``--context NAME=VALUE``: a context by hand, for commands that tell of one row."""

from typing import TYPE_CHECKING, Any

import click

from runtime.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from features.config import ContextFeature

context_option = click.option(
    "--context", multiple=True, metavar="NAME=VALUE", help="A value of the context; may be given repeatedly."
)


def context_of(given: tuple[str, ...], declared: "Mapping[str, ContextFeature]") -> dict[str, Any]:
    """The values by name, each of the type that graft.toml declares; InvalidInputError for what it does not declare."""
    types = {"int": int, "float": float, "str": str}
    context = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or name not in declared:
            allowed = ", ".join(declared) or "none: the project has no [features.context]"
            raise InvalidInputError(f"--context: must be NAME=VALUE with a name of {allowed}, got {one!r}")
        kind = declared[name].dtype
        try:
            context[name] = types[kind](value)
        except ValueError:
            raise InvalidInputError(f"--context: {name} must be of the type {kind}, got {value!r}") from None
    return context
