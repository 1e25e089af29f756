"""The stream process of the tests: `python process.py KAFKA_SERVERS PREFIX PARTITIONS INSTANCE REDIS_URL FLOOR`."""

import atexit
import gc
import sys

from features.aggregates import Aggregates
from features.reader import OnlineReader
from runtime.errors import GraftError
from runtime.redis import connect, reaching
from runtime.telemetry import StopSignal, configure_logging
from stream.run import run_stream
from tests.stream.pair import AGGREGATES, SPEC, TASKS, stream_config, topics


class HashPusher:
    """Writes the aggregates' absolute values into a hash of this pair, as a pusher must: idempotent."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self._url, self._prefix = redis_url, prefix
        self._client = connect(redis_url)

    def push(self, aggregates, changed, event_time_ms):  # noqa: ARG002 - the protocol
        written = 0
        with reaching(self._url):
            for entity, ids in changed.items():
                rows = aggregates.rows(f"{entity}_push", entity, ids)
                for name, values in rows.items():
                    self._client.hset(
                        f"{self._prefix}{entity}:{name}", mapping=dict(zip(map(str, ids), values, strict=True))
                    )
                    written += len(values)
        return written


def main() -> None:
    atexit.register(gc.freeze)  # ends as quickly as graft's own command
    kafka_servers, prefix, partitions, instance, redis_url, floor = sys.argv[1:]
    configure_logging()
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
            snapshot_floor_bytes=int(floor),
        )
    except GraftError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


if __name__ == "__main__":
    main()
