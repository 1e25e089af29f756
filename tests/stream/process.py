"""The stream process of the tests: `python process.py KAFKA_SERVERS PREFIX PARTITIONS INSTANCE REDIS_URL FLOOR`."""

import atexit
import gc
import sys
from types import SimpleNamespace

from features.aggregates import Aggregates
from features.online.reader import OnlineReader
from features.push.push_order import in_order
from runtime.errors import GraftError
from runtime.redis import connect, reaching
from runtime.telemetry import StopSignal, configure_logging
from stream.process import worker
from stream.process.run import run_stream
from tests.stream.pair import AGGREGATES, SPEC, TASKS, stream_config, topics


class HashPusher:
    """Writes the aggregates' absolute values into hashes of this pair, in the order that Feast's pusher keeps too."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self._url, self._prefix = redis_url, prefix
        self._client = connect(redis_url)
        self._store = SimpleNamespace(provider=SimpleNamespace(online_store=self))

    def _get_client(self, _config):
        return self._client

    def push(self, aggregates, changed, shown_ms, positions):  # noqa: ARG002 - the protocol
        with reaching(self._url), in_order(self._store, self._prefix, "the tests", positions):
            pipe = self._get_client(None).pipeline(transaction=False)
            for entity, ids in changed.items():
                for name, values in aggregates.rows(f"{entity}_push", entity, ids).items():
                    pipe.hset(f"{self._prefix}{entity}:{name}", mapping=dict(zip(map(str, ids), values, strict=True)))
            return len(pipe.execute())


def main() -> None:
    atexit.register(gc.freeze)  # ends as quickly as graft's own command
    kafka_servers, prefix, partitions, instance, redis_url, floor = sys.argv[1:]
    configure_logging()
    worker._PURGE_SECONDS = 0.5  # so that the tests see it
    try:
        run_stream(
            kafka_servers,
            stream_config(prefix, int(partitions)),
            topics(prefix),
            TASKS,
            SPEC,
            OnlineReader(SPEC, redis_url),
            lambda: Aggregates(AGGREGATES),
            HashPusher(redis_url, prefix),
            instance,
            StopSignal().install(),
            log_floor_bytes=int(floor),
        )
    except GraftError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


if __name__ == "__main__":
    main()
