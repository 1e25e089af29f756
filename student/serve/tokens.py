"""Bearer tokens of the scorer's clients, from a file that may change while the scorer runs."""

import hmac
import logging
import re
import time
from pathlib import Path

from runtime.errors import ConfigurationError

_log = logging.getLogger(__name__)

_SHORTEST = 16
_GOOD = re.compile(rb"[ -~]{%d,}" % _SHORTEST)  # a header's other characters have no encoding that all agree on
_LOOK_SECONDS = 1.0


class Tokens:
    """The tokens in `path`, one a line; empty lines and those that begin with # are none.

    Several at a time let clients change over one by one. ConfigurationError when the file holds none, or one that is
    short. A later change is taken up within a second; a file that is no good then leaves the tokens as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = _changed(path)  # first: what is written while it is read counts as a change
        self._tokens = _read(path)
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def allow(self, authorization: str | None) -> bool:
        """Whether an Authorization header has one of the tokens; takes as long for a wrong one as for a right one."""
        self._follow()
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip().encode()
        found = [hmac.compare_digest(given, one) for one in self._tokens]
        return scheme.lower() == "bearer" and any(found)

    def _follow(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_SECONDS
        changed = _changed(self._path)
        if changed != self._changed:
            self._changed = changed
            try:
                self._tokens = _read(self._path)
            except ConfigurationError as error:
                _log.error("the tokens stay as they were: %s", error)
            else:
                _log.info("%d tokens from %s", len(self._tokens), self._path)


def _read(path: Path) -> list[bytes]:
    variable = "GRAFT_HTTP_TOKENS_FILE"
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{variable}: cannot read {path}: {error}"]) from None
    tokens = [line.encode() for line in lines if line and not line.startswith("#")]
    if not tokens or not all(map(_GOOD.fullmatch, tokens)):
        rule = (
            f"must hold tokens of at least {_SHORTEST} ASCII characters, one a line, such as those of "
            "'openssl rand -hex 32'"
        )
        raise ConfigurationError([f"{variable}: {path} {rule}"])
    return tokens


def _changed(path: Path) -> tuple[int, int, int] | None:
    """Other numbers after a change of the file, of its rights or of which file it is."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_ctime_ns, told.st_ino, told.st_size
