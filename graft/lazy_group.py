"""Groups of commands. Each is imported when it runs, so that it does not wait for the imports of the others."""

import importlib
import logging
import signal
from collections.abc import Mapping
from importlib.metadata import EntryPoints, entry_points
from typing import Any, Literal, NamedTuple, get_args

import click

from graft.removed import COMMANDS
from runtime.errors import ConfigurationError, GraftError, did_you_mean
from runtime.folder import refusal
from runtime.outage import StoppedError
from runtime.telemetry import say

_INTERRUPTED = 128 + signal.SIGINT  # as a shell reports a process that the signal ended

ENTRY_POINT_GROUP = "graft.commands"
"""Where an installed distribution names its commands: each entry point is a LazyCommand."""


_FULL = {"feast", "kafka", "numba", "onnx", "onnxruntime", "pandas", "pyarrow", "rich", "torch", "typeguard"}
_GOT_BY = dict.fromkeys(_FULL, "pip install 'graft[full]', or use the image 'graft' in place of 'graft-scorer'") | {
    "fsspec": "pip install 'graft[s3]', or use the image 'graft-s3'"
}
"""How to get the libraries that `pip install graft` alone, and the scorer's image, do without, by their modules."""


Purpose = Literal["start", "run", "look", "repair"]


class LazyCommand(NamedTuple):
    """Where a command is defined (module:attribute), its line in the list of commands, and what one wants by it."""

    target: str
    short_help: str
    purpose: Purpose = "look"

    def load(self) -> click.Command:
        """The command itself."""
        module, _, attribute = self.target.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


class CommandGroup(click.Group):
    """A group in which an unknown command is a usage error that says what took its place, or names the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.list_commands(ctx):
            advice = COMMANDS.get(f"{ctx.command_path} {name}")
            ctx.fail(f"{name!r} was removed; {advice}" if advice else self._missing(name, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def _missing(self, name: str, known: list[str]) -> str:
        """Why there is no such command."""
        return f"no such command {name!r}{did_you_mean(name, known)}"


class NounGroup(CommandGroup):
    """The commands of one noun, by their verbs; its help imports none of them."""

    def __init__(self, name: str, help: str, verbs: Mapping[str, LazyCommand]) -> None:  # noqa: A002 - click's word
        super().__init__(name, help=help)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The imported command; None where there is none of that name."""
        return self._verbs[cmd_name].load() if cmd_name in self._verbs else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """The list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, lazy.short_help) for verb, lazy in self._verbs.items()])


class LazyGroup(CommandGroup):
    """The command line: imports a command when it is asked for, and prints a GraftError as lines without a traceback.

    `commands` are its own by their words, such as "student train", and `nouns` what those of a noun do. Then come those
    that other installed distributions add by an entry point; `elsewhere` says of those that may not be installed how to
    get them.
    """

    def __init__(
        self,
        *args: Any,
        lazy_commands: Mapping[str, LazyCommand],
        nouns: Mapping[str, str],
        elsewhere: Mapping[str, str],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lazy_commands, self._nouns, self._elsewhere = lazy_commands, nouns, elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The first words of all commands."""
        return list(dict.fromkeys(words.split()[0] for words in self._all()))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """The group of a noun, or the imported command; None where there is none of that name."""
        if cmd_name in self._nouns:
            split = {words.partition(" "): lazy for words, lazy in self._lazy_commands.items()}
            verbs = {verb: lazy for (noun, _, verb), lazy in split.items() if noun == cmd_name}
            return NounGroup(cmd_name, self._nouns[cmd_name], verbs)
        lazy = self._all().get(cmd_name)
        return lazy.load() if lazy else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """All commands by what one wants to do, without importing any."""
        for purpose in get_args(Purpose):
            with formatter.section(purpose.capitalize()):
                rows = [(words, lazy.short_help) for words, lazy in self._all().items() if lazy.purpose == purpose]
                formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a GraftError becomes its exit code and one line per fault on standard error.

        So does a file or folder that the disk or its owner refuses. A stop that was asked for while the command waited
        for a service is its end, with 0. Ctrl-C ends a command that does not wait for it with 130.
        """
        try:
            return super().invoke(ctx)
        except StoppedError:
            return None
        except GraftError as error:
            for fault in error.faults if isinstance(error, ConfigurationError) else (error,):
                say(str(fault), logging.ERROR, "error: ", **error.place)
            ctx.exit(error.exit_code)
        except ModuleNotFoundError as error:
            got_by = _GOT_BY.get((error.name or "").partition(".")[0])
            if got_by is None:
                raise
            say(f"this command needs {error.name}, which is not installed here: {got_by}", logging.ERROR, "error: ")
            ctx.exit(1)
        except OSError as error:
            refused = refusal(error)
            if refused is None:
                raise
            say(refused, logging.ERROR, "error: ")
            ctx.exit(1)
        except KeyboardInterrupt:
            say("interrupted")
            ctx.exit(_INTERRUPTED)

    def _missing(self, name: str, known: list[str]) -> str:
        """Why there is no such command, and how to get one of another distribution."""
        if name in self._elsewhere:
            return f"{name!r} is not installed: {self._elsewhere[name]}"
        return super()._missing(name, known)

    def _all(self) -> dict[str, LazyCommand]:
        """Its own commands, then those of other distributions."""
        added = _added()
        others = {name: added[name].load() for name in sorted(added.names - self._lazy_commands.keys())}
        return {**self._lazy_commands, **others}


def _added() -> EntryPoints:
    return entry_points(group=ENTRY_POINT_GROUP)
