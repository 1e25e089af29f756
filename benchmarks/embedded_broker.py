"""Memory of the embedded broker under what the processes of `graft dev` write, without these processes.

Each transaction holds what the stream writes for 750 examples: teacher requests and examples, updates of the aggregates
of one user and one item each, and the state log's changes, by its own cleaner. Before it come their impressions and
feedback, after it the used logits, the groups' offsets and the deletions. Sizes are those of `graft dev` on a log of
benchmarks/init_scale.py.

PYTHONPATH=. python benchmarks/embedded_broker.py [--examples 300000] [--users 200000] [--items 50000]
"""

import argparse
import json
import time
from collections.abc import Iterator

import numpy as np
import psutil
from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from lab.dev.run import LIMITS
from lab.embedded import EmbeddedKafka
from stream import connection
from stream.config import StreamConfig, Topics
from stream.groups import LEARNER_GROUP, REPLAY_GROUP, STREAM_GROUP
from stream.log_cleaner import Entry
from stream.packed_entries import packed
from stream.state_log import FLOOR_BYTES, StateLog
from stream.topics import ensure_topics
from stream.transactions import Outgoing, Transactions

TOPICS = Topics()
EXAMPLES = 750  # of a transaction, half a second of `graft dev`
LINES = 20
PURGED = 20  # transactions between two deletions of counted updates, which the stream process makes every 30 s
REMEMBERED_IDS = 22_000  # a day of event time, an impression in 4 s
SEGMENT_IDS = 128
FIRST_MS = 1_600_000_000_000


class Written:
    """Records and changes of the state, for example after example."""

    def __init__(self, users: int, items: int) -> None:
        self._draw, self._users, self._items = np.random.default_rng(1), users, items
        self._seen: dict[str, int] = {}

    def event(self, number: int) -> bytes:
        """An impression."""
        return json.dumps(self._row(number)).encode()

    def example(self, number: int) -> bytes:
        """An example, or the request of one."""
        features = [round(float(x), 12) for x in self._draw.random(6)]
        more = {"spec_id": "941f2cdcc98d58ca", "context": {"device": "phone"}, "features": features}
        return json.dumps({**self._row(number), **more}).encode()

    def changes(self, first: int) -> list[Entry]:
        """The state's changes by the examples of one transaction."""
        changes: dict[str, bytes | None] = {}
        for number in range(first, first + EXAMPLES):
            user, item = self._user_and_item()
            for key in (f"aggregate:user:{user}", f'aggregate:item:"item-{item}"'):
                self._seen[key] = self._seen.get(key, 0) + 1
                changes[key] = self._aggregates(key, number)
            changes[f"impression:e{number:09}"] = None
        for segment in range(first // SEGMENT_IDS, (first + EXAMPLES) // SEGMENT_IDS + 1):
            changes[f"remembered:{segment}"] = self._remembered(segment)
            changes[f"remembered:{segment - REMEMBERED_IDS // SEGMENT_IDS}"] = None
        changes["position"] = b"%d" % first
        return list(changes.items())

    def entry(self, key: str) -> bytes | None:
        """An unchanged entry's value again."""
        kind, _, rest = key.partition(":")
        return self._remembered(int(rest)) if kind == "remembered" else self._aggregates(key, self._seen.get(key, 1))

    def _user_and_item(self) -> tuple[int, int]:
        """Users alike, popular items more often."""
        return int(self._draw.integers(self._users)), int(self._items * self._draw.random() ** 3)

    def _row(self, number: int) -> dict[str, object]:
        user, item = self._user_and_item()
        time_ms = FIRST_MS + 4_000 * number
        return {"impression_id": _id(number), "user_id": user, "item_id": f"item-{item}", "event_time_ms": time_ms}

    def _aggregates(self, key: str, number: int) -> bytes:
        shown = float(self._seen.get(key, 1))
        return json.dumps([FIRST_MS + 4_000 * number, shown, shown // 8, shown, shown // 8 * 3, shown // 8]).encode()

    @staticmethod
    def _remembered(segment: int) -> bytes:
        numbers = range(segment * SEGMENT_IDS, (segment + 1) * SEGMENT_IDS)
        times = [FIRST_MS + 86_400_000 + 4_000 * number for number in numbers]
        return json.dumps(([_id(number) for number in numbers], times), separators=(",", ":")).encode()


class Writer:
    """What writes to the broker: a replay, a stream process and a learner."""

    def __init__(self, kafka_servers: str, written: Written) -> None:
        self._admin, self._producer = connection.admin(kafka_servers), connection.producer(kafka_servers)
        self._log = StateLog(kafka_servers, self._admin, TOPICS.join_state, FLOOR_BYTES)
        self._log.restore(0)
        self._transactions = Transactions(kafka_servers, self._admin, TOPICS, "bench")
        self._written = written
        self._counted = 0

    def write(self, transaction: int) -> int:
        """All that is written for the examples of one transaction; how many messages that is."""
        numbers = range(transaction * EXAMPLES, (transaction + 1) * EXAMPLES)
        offset, sent = self._send_events(numbers)
        records = [
            Outgoing(topic, 0, _id(number).encode(), self._written.example(number))
            for topic in (TOPICS.teacher_requests, TOPICS.examples)
            for number in numbers
        ]
        updates = [(_id(number), b'{"entity":"item","labels":{"clicked":0}}') for number in numbers for _ in range(2)]
        records += [Outgoing(TOPICS.aggregate_updates, 0, None, value) for value in packed(updates)]
        records += self._log.append(0, self._written.changes(numbers.start), self._written.entry)
        read = {TopicPartition(TOPICS.impressions, 0): offset}
        offsets = self._transactions.commit(records, read, ConsumerGroupMetadata(STREAM_GROUP))
        self._log.committed(records, offsets)
        if transaction % PURGED == 0:
            self._admin.delete_records({TopicPartition(TOPICS.aggregate_updates, 0): self._counted})
        places = zip(records, offsets, strict=True)
        self._counted = max(at for record, at in places if record.topic == TOPICS.aggregate_updates)
        used = list(packed((_id(number), b"[-1.234567,0.234567,1.345678]") for number in numbers))
        for value in used:
            self._producer.send(TOPICS.used_logits, value, partition=0)
        for group in (LEARNER_GROUP, REPLAY_GROUP):
            self._admin.alter_group_offsets(
                group, {TopicPartition(TOPICS.examples, 0): OffsetAndMetadata(offset, "", -1)}
            )
        return sent + len(records) + len(used)

    def _send_events(self, numbers: range) -> tuple[int, int]:
        """Impressions, and feedback of one in four: the end of the impressions, and the number of messages."""
        for number in numbers:
            last = self._producer.send(TOPICS.impressions, self._written.event(number), partition=0)
        for number in numbers[::4]:
            self._producer.send(TOPICS.feedback, self._written.event(number), partition=0)
        self._producer.flush()
        return last.get(timeout=0).offset + 1, len(numbers) + len(numbers[::4])


def _id(number: int) -> str:
    return f"e{number:09}"


def measured(kafka: EmbeddedKafka, writer: Writer, transactions: int) -> Iterator[dict[str, int]]:
    """For each twentieth of the transactions: the broker's highest memory in it, and what was done by its end."""
    broker, dump = psutil.Process(kafka.process.pid), kafka.folder / "data" / "kafka.json"
    messages = peak = 0
    began = time.monotonic()
    for transaction in range(transactions):
        messages += writer.write(transaction)
        peak = max(peak, broker.memory_info().rss)
        if (transaction + 1) % max(1, transactions // LINES) == 0:
            used = broker.cpu_times()
            yield {
                "examples": (transaction + 1) * EXAMPLES,
                "messages": messages,
                "seconds": round(time.monotonic() - began),
                "peak_mib": peak // 2**20,
                "dump_mib": dump.stat().st_size // 2**20,
                "broker_cpu_seconds": round(used.user + used.system),
                "cpu_seconds": round(time.process_time()),
            }
            peak = 0


def main() -> None:
    """Print these as lines of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=300_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    options = parser.parse_args()
    with EmbeddedKafka() as kafka:
        ensure_topics(kafka.servers, StreamConfig(), TOPICS, LIMITS)
        writer = Writer(kafka.servers, Written(options.users, options.items))
        for row in measured(kafka, writer, options.examples // EXAMPLES):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
