"""Makes Redis' users, one for each process, with the commands and keys that it needs; run once, before Redis starts.

    FOLDER/redis/users.acl      the users with the digests of their passwords, for Redis
    FOLDER/redis/health         the password of Redis' own health check
    FOLDER/redis/default        that of the user who may do everything, for an operator
    FOLDER/USER/redis_url       Redis' address with a user's password, for that user's process alone
    FOLDER/USER/rediss_url      the same over TLS, for docker-compose.secure.yml

Passwords that are there stay; a file that is removed gets a new one. Redis reads its users when it starts.
"""

import hashlib
import secrets
import sys
from pathlib import Path

_CONNECTION = "+ping +hello +auth +client|setname +client|setinfo +select"
_READ = "+get +mget +hget +hmget +hgetall +exists +hexists +zrangebyscore"
_WRITE = "+set +hset +hsetnx +hincrby +hdel +expire +unlink +del +zadd"
_TRANSACTIONS = "+multi +exec +discard +watch +unwatch"
_LOCK = "+eval +evalsha +script|load"  # redis-py's lock is released by a script

RIGHTS = {
    # Feast's keys are binary and end with the Feast project: no pattern can name them beforehand.
    "setup": f"~* {_READ} {_WRITE} {_TRANSACTIONS} +scan",
    "stream": f"~* {_READ} {_WRITE} {_TRANSACTIONS} {_LOCK} +scan",
    "teacher": f"~* {_READ} {_WRITE} {_TRANSACTIONS}",
    "learner": f"%R~* ~graft:teachers:* {_READ} +hincrby",
    "archive": f"%R~graft:logits:* {_READ}",
    "scorer": f"%R~* %W~graft:served:* {_READ} +set +client|tracking +client|caching",
    "operator": f"~* {_READ} {_WRITE} {_TRANSACTIONS} {_LOCK} +scan +hlen +hvals +memory|usage",
    "health": "",
    # No process logs in as this one. Redis replays its log by its rights: without them it would leave out transactions.
    "default": "~* &* +@all",
}


def make_users(folder: Path) -> None:
    """Write the files of all users; `folder` is made where it is missing."""
    lines = []
    for user, rights in RIGHTS.items():
        if user in {"health", "default"}:
            password = _kept(folder / "redis" / user, "")
        else:
            password = _kept(folder / user / "redis_url", f"redis://{user}:PASSWORD@redis:6379/0")
            _write(folder / user / "rediss_url", f"rediss://{user}:{password}@redis:6379/0")
        digest = hashlib.sha256(password.encode()).hexdigest()
        lines.append(f"user {user} on #{digest} resetchannels {_CONNECTION} {rights}".rstrip())
    _write(folder / "redis" / "users.acl", "\n".join(lines) + "\n")


def _kept(path: Path, url: str) -> str:
    """The password in the file, which is `url` with its password where one is given; a new one where it is missing."""
    before, _, after = url.partition("PASSWORD")
    if not path.exists():
        _write(path, before + secrets.token_hex(32) + after)
    return path.read_text("utf-8").strip().removeprefix(before).removesuffix(after)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(text, "utf-8")
    partial.replace(path)


if __name__ == "__main__":
    make_users(Path(sys.argv[1]))
