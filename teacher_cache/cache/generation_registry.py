"""The generations of a project's logits in Redis: which there are, what made each, and which name each has.

key    graft:teachers:{project}               hash
field  generation:{digest}                    JSON of a `Record`
field  name:{teacher version}                 digest: the one generation of that name
key    graft:teachers:{project}:{digest}      hash of counts, see teacher_cache/cache/cache.py
"""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.errors import ConfigurationError
from runtime.redis import WatchError, connect, reaching
from teacher_cache.cache.generation import Generation, differences

_GENERATION, _NAME = "generation:", "name:"


class Record(BaseModel):
    """A generation, its first name, when (milliseconds since 1970) and where it was first used."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    generation: Generation
    name: str
    begun_ms: int
    begun_at: str


class GenerationRegistry:
    """The generations of one project. Every method raises ServiceUnavailableError when Redis does not answer."""

    def __init__(self, redis_url: str, project: str, *, timeout_seconds: float = 5.0) -> None:
        self._url = redis_url
        self._client = connect(redis_url, timeout_seconds=timeout_seconds)
        self._key = f"graft:teachers:{project}"

    def begin(self, record: Record) -> None:
        """Note the generation and its name, unless both are known.

        ConfigurationError, and nothing is noted, when the name is another generation's.
        """
        digest = record.generation.digest
        with reaching(self._url), self._client.pipeline() as pipeline:
            while True:
                pipeline.watch(self._key)  # type: ignore[no-untyped-call]
                known = _decoded(pipeline.hgetall(self._key))
                if faults := _clash(known, record.name, record.generation):
                    raise ConfigurationError(faults)
                pipeline.multi()
                pipeline.hsetnx(self._key, _GENERATION + digest, record.model_dump_json())
                pipeline.hset(self._key, _NAME + record.name, digest)
                try:
                    pipeline.execute()
                except WatchError:  # another process has noted something meanwhile: look again
                    continue
                return

    def clash(self, name: str, generation: Generation) -> list[str]:
        """Why `name` cannot be the name of this generation: what has changed since it was another's; else nothing."""
        return _clash(self._read(), name, generation)

    def records(self) -> dict[str, Record]:
        """Every generation by its digest, the first one that was used first; one that cannot be read is left out."""
        known = self._read()
        found = {field.removeprefix(_GENERATION): _record(value) for field, value in known.items()}
        records = {digest: record for digest, record in found.items() if record is not None}
        return dict(sorted(records.items(), key=lambda one: one[1].begun_ms))

    def names(self) -> dict[str, str]:
        """The digest by name."""
        return {f.removeprefix(_NAME): digest for f, digest in self._read().items() if f.startswith(_NAME)}

    def forget(self, digest: str) -> None:
        """Remove a generation and its names, which are free then."""
        names = [_NAME + name for name, of in self.names().items() if of == digest]
        with reaching(self._url):
            self._client.hdel(self._key, _GENERATION + digest, *names)

    def clear(self) -> None:
        """Remove all generations and names."""
        with reaching(self._url):
            self._client.unlink(self._key)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _read(self) -> dict[str, str]:
        with reaching(self._url):
            return _decoded(self._client.hgetall(self._key))


def _decoded(found: object) -> dict[str, str]:
    assert isinstance(found, dict)
    return {field.decode("utf-8", "replace"): value.decode("utf-8", "replace") for field, value in found.items()}


def _record(value: str) -> Record | None:
    try:
        return Record.model_validate_json(value)
    except ValidationError:
        return None


def _clash(known: dict[str, str], name: str, generation: Generation) -> list[str]:
    digest = known.get(_NAME + name, generation.digest)
    if digest == generation.digest:
        return []
    record = _record(known.get(_GENERATION + digest, ""))
    since, changed = "", ["what it was made of is not known"]
    if record is not None:
        since = f" since {datetime.fromtimestamp(record.begun_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
        changed = differences(record.generation, generation)
    fault = (
        f"graft.toml: teacher.version: {name!r} is the name of generation {digest}{since}, and this project now makes "
        f"generation {generation.digest}: {'; '.join(changed)}. Give it another teacher.version, or free the name "
        f"with 'graft reset --generation {digest}'"
    )
    return [fault]
