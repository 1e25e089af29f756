"""Faults planted in the product's code, each of which the simulation must find: a name and how it is planted."""

import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.structs import ConsumerGroupMetadata

from stream.events import Feedback
from stream.join import aggregation
from stream.join.aggregation import EntityAggregates
from stream.join.join import Join, Pending
from stream.join.log_cleaner import BEGINS_AT, LogCleaner
from stream.join.partition import Partition, Taken, Watermark
from stream.join.remembered import RememberedIds
from stream.join.sampling import KnownItems, Sampling
from stream.kafka import connection, topics
from stream.kafka.dead_letters import DeadLetter
from stream.kafka.transactions import Transactions
from stream.positions import Positions
from stream.process import inputs, state_log, worker

Plant = Callable[[pytest.MonkeyPatch], None]
MUTANTS: dict[str, Plant] = {}


def mutant(plant: Plant) -> Plant:
    """Add it to the mutants."""
    MUTANTS[plant.__name__] = plant
    return plant


@mutant
def offsets_committed_before_the_records(monkeypatch):
    """In a transaction of their own."""

    def commit(self, records, positions, identity):
        self._producer.begin_transaction()
        self._producer.send_offsets_to_transaction(
            {at: SimpleNamespace(offset=offset) for at, offset in positions.items()}, identity
        )
        self._producer.commit_transaction()
        self._producer.begin_transaction()
        sent = [self._producer.send(r.topic, r.value, r.key, r.headers, r.partition) for r in records]
        self._producer.flush()
        self._producer.commit_transaction()
        return [future.get().offset for future in sent]

    monkeypatch.setattr(Transactions, "commit", commit)


@mutant
def state_and_examples_in_two_transactions(monkeypatch):
    """The state first."""
    whole = Transactions.commit

    def commit(self, records, positions, identity):
        state = [one for one in records if one.topic == "join-state"]
        offsets = whole(self, state, positions, identity)
        whole(self, [one for one in records if one.topic != "join-state"], {}, identity)
        return [*[0] * (len(records) - len(state)), *offsets]

    monkeypatch.setattr(Transactions, "commit", commit)


@mutant
def offsets_committed_without_the_state(monkeypatch):
    whole = Transactions.commit

    def commit(self, records, positions, identity):
        kept = [one for one in records if one.topic != "join-state"]
        return [*whole(self, kept, positions, identity), *[0] * (len(records) - len(kept))]

    monkeypatch.setattr(Transactions, "commit", commit)


@mutant
def a_lost_tombstone(monkeypatch):
    """An impression that has closed stays in the state log."""
    whole = Join.changes

    def changes(self):
        return [(key, value) for key, value in whole(self) if value is not None or not key.startswith("impression:")]

    monkeypatch.setattr(Join, "changes", changes)


@mutant
def an_unclamped_watermark(monkeypatch):
    """An event moves event time to its own time, past the clocks."""
    whole = Partition.add

    def add(self, message, validator, wall_ms):
        put = self._merge.add
        self._merge.add = lambda topic, at_ms, taken: put(
            topic, at_ms, Taken(taken.message, taken.event, getattr(taken.event, "event_time_ms", 0), taken.code)
        )
        try:
            whole(self, message, validator, wall_ms)
        finally:
            del self._merge.add

    monkeypatch.setattr(Partition, "add", add)


@mutant
def a_watermark_of_the_faster_input(monkeypatch):
    def observe(self, source, event_time_ms):
        self._newest_ms[source] = max(event_time_ms, self._newest_ms.get(source, -1))
        self.value_ms = max(self._newest_ms.values())

    monkeypatch.setattr(Watermark, "observe", observe)


@mutant
def a_watermark_that_a_restart_forgets(monkeypatch):
    whole = Join.restore
    monkeypatch.setattr(Watermark, "restored", lambda self, state: self)
    monkeypatch.setattr(Join, "restore", lambda self, entries, watermark_ms: whole(self, entries, None))


@mutant
def an_id_forgotten_too_early(monkeypatch):
    """When its impression closes."""
    monkeypatch.setattr(Join, "knows", lambda self, impression_id: impression_id in self._pending)


@mutant
def ids_forgotten_by_a_restart(monkeypatch):
    whole = Join.restore

    def restore(self, entries, watermark_ms):
        whole(self, {key: value for key, value in entries.items() if not key.startswith("remembered:")}, watermark_ms)

    monkeypatch.setattr(Join, "restore", restore)


@mutant
def remembered_ids_deleted_with_the_first_of_their_segment(monkeypatch):
    whole = RememberedIds.forget

    def forget(self, before_ms):
        before = {key: segment.ids for key, segment in self._segments.items()}
        whole(self, before_ms)
        self._emptied.update((key, None) for key, one in self._segments.items() if one.ids != before[key])

    monkeypatch.setattr(RememberedIds, "forget", forget)


@mutant
def remembered_ids_overwritten_after_a_restart(monkeypatch):
    """Segments are numbered from 0 again."""
    whole = RememberedIds.restore

    def restore(self, entries, watermark_ms):
        whole(self, entries, watermark_ms)
        self._count = 0

    monkeypatch.setattr(RememberedIds, "restore", restore)


@mutant
def uncommitted_read(monkeypatch):
    """By every consumer."""
    whole = connection.consumer
    monkeypatch.setattr(
        connection,
        "consumer",
        lambda servers, **more: whole(servers, **{"isolation_level": "read_uncommitted", **more}),
    )


@mutant
def positions_not_restored(monkeypatch):
    """A restart goes on at the end of the inputs."""

    def start(self, partition, positions):
        found = self._consumer.end_offsets([TopicPartition(topic, partition) for topic in self._read])
        for at, offset in found.items():
            self._consumer.seek(at, offset)
        self._consumer.resume(*found)
        return {at.topic: offset for at, offset in found.items()}

    monkeypatch.setattr(inputs.Inputs, "start", start)


@mutant
def a_restart_that_begins_anew(monkeypatch):
    """From the first message, with the state and the counted updates as they are."""
    monkeypatch.setattr(Positions, "take", lambda self, key, offset: self._offsets.update({key: offset + 1}))
    whole = inputs.Inputs.start

    def start(self, partition, positions):
        counted = {topic: offset for topic, offset in positions.items() if topic == "aggregate-updates"}
        return whole(self, partition, {**dict.fromkeys(positions, 0), **counted})

    monkeypatch.setattr(inputs.Inputs, "start", start)


@mutant
def a_label_overwritten_by_an_older_one(monkeypatch):
    whole = Join.feedback

    def take(self, feedback: Feedback, message):
        pending = self._pending.get(feedback.impression_id)
        if pending:
            pending.labels.pop(feedback.task, None)
        whole(self, feedback, message)

    monkeypatch.setattr(Join, "feedback", take)


@mutant
def labels_lost_by_a_restart(monkeypatch):
    """Orphans and labels come back, but not those of the entry that changed last."""
    whole = Join.restore

    def restore(self, entries, watermark_ms):
        last = next((key for key in reversed(entries) if key.startswith("labels:")), "")
        whole(self, {key: value for key, value in entries.items() if key != last}, watermark_ms)

    monkeypatch.setattr(Join, "restore", restore)


@mutant
def orphans_dropped_by_a_restart(monkeypatch):
    whole = Join.restore

    def restore(self, entries, watermark_ms):
        whole(self, {key: value for key, value in entries.items() if not key.startswith("orphans:")}, watermark_ms)

    monkeypatch.setattr(Join, "restore", restore)


@mutant
def a_state_log_trimmed_one_record_too_far(monkeypatch):
    whole = LogCleaner.committed

    def committed(self, offsets):
        before = whole(self, offsets)
        return None if before is None else before + 1

    monkeypatch.setattr(LogCleaner, "committed", committed)


@mutant
def a_state_log_that_is_said_to_begin_one_entry_too_late(monkeypatch):
    whole = LogCleaner.append

    def append(self, changes, entry):
        entries = whole(self, changes, entry)
        self._head = [*self._live.values(), self._end, self._end][1]
        entries[-1] = (BEGINS_AT, str(self._head.offset).encode())
        return entries

    monkeypatch.setattr(LogCleaner, "append", append)


@mutant
def a_state_log_trimmed_to_where_only_the_next_transaction_lets_it_begin(monkeypatch):
    whole = LogCleaner.committed

    def committed(self, offsets):
        before = whole(self, offsets)
        return None if before is None else next(iter(self._live.values())).offset

    monkeypatch.setattr(LogCleaner, "committed", committed)


@mutant
def an_old_entry_that_is_not_written_anew(monkeypatch):
    whole = LogCleaner._oldest
    monkeypatch.setattr(LogCleaner, "_oldest", lambda self, budget, entry: list(whole(self, budget, entry))[1:])


@mutant
def an_old_entry_written_anew_with_the_value_that_it_had_first(monkeypatch):
    changes, entry = Partition.changes, Partition.entry
    firsts: dict[tuple[object, str], bytes | None] = {}

    def noted(self):
        found = changes(self)
        for key, value in found:
            firsts.setdefault((self, key), value)
        return found

    monkeypatch.setattr(Partition, "changes", noted)
    monkeypatch.setattr(Partition, "entry", lambda self, key: firsts.get((self, key)) or entry(self, key))


@mutant
def entries_kept_in_the_order_of_their_first_write(monkeypatch):
    whole = LogCleaner.wrote

    def wrote(self, offset, key, value):
        order = list(self._live)
        whole(self, offset, key, value)
        if key in order and value is not None:
            for other in order[order.index(key) + 1 :]:
                self._live.move_to_end(other)

    monkeypatch.setattr(LogCleaner, "wrote", wrote)


@mutant
def a_restart_that_forgets_where_entries_stand(monkeypatch):
    """So none of them is written anew."""
    whole = state_log.saved_state

    def saved_state(records, floor_bytes):
        saved = whole(records, floor_bytes)
        saved.cleaner._live.clear()
        return saved

    monkeypatch.setattr(state_log, "saved_state", saved_state)


@mutant
def a_restore_that_does_not_wait_for_open_transactions(monkeypatch):
    def read(reader, at, end):
        for batch in reader.poll(timeout_ms=200).values():
            yield from batch

    monkeypatch.setattr(topics, "_records", read)


@mutant
def a_zombie_that_is_not_fenced(monkeypatch):
    """Offsets are committed without saying of which generation, so that nobody is refused."""
    whole = inputs.Inputs.claim

    def claim(self):
        found = whole(self)
        self.identity = ConsumerGroupMetadata(self.identity.group_id, -1, "", None)
        return found

    monkeypatch.setattr(inputs.Inputs, "claim", claim)


@mutant
def aggregates_lost_by_a_restart(monkeypatch):
    monkeypatch.setattr(EntityAggregates, "restore", lambda self, entries: None)


@mutant
def restored_aggregates_that_are_not_pushed(monkeypatch):
    whole = EntityAggregates.restore
    monkeypatch.setattr(EntityAggregates, "restore", lambda self, entries: (whole(self, entries), self.pushed()))


@mutant
def updates_written_outside_the_transaction(monkeypatch):
    """In one of their own, after it."""
    whole = Transactions.commit

    def commit(self, records, positions, identity):
        updates = [one for one in records if one.topic == "aggregate-updates"]
        offsets = whole(self, [one for one in records if one.topic != "aggregate-updates"], positions, identity)
        if updates:
            whole(self, updates, {}, identity)
        return [*[0] * len(updates), *offsets]

    monkeypatch.setattr(Transactions, "commit", commit)


@mutant
def the_position_of_the_updates_not_saved(monkeypatch):
    whole = Partition._position

    def position(self):
        key, value = whole(self)
        saved = json.loads(value or b"")
        del saved["offsets"][self.updates]
        return key, json.dumps(saved).encode()

    monkeypatch.setattr(Partition, "_position", position)
    monkeypatch.setattr(EntityAggregates, "are_in", staticmethod(lambda entries: False))


@mutant
def updates_deleted_before_they_are_counted(monkeypatch):
    """All that there are now."""

    def purge(self):
        at = [TopicPartition("aggregate-updates", number) for number in self._partitions]
        ends = self._admin.list_partition_offsets(dict.fromkeys(at, OffsetSpec.LATEST))
        self._admin.delete_records({one: end.offset for one, end in ends.items()})

    monkeypatch.setattr(worker.StreamWorker, "_purge", purge)


@mutant
def rows_of_users_who_left_kept(monkeypatch):
    monkeypatch.setattr(EntityAggregates, "_evict", lambda self: self._aggregates.evict(self._event_time_ms) and None)


@mutant
def the_entry_of_a_user_who_left_deleted_before_the_row(monkeypatch):
    """After a kill in between nobody knows that there is a row."""
    whole = EntityAggregates.changes

    def changes(self):
        self._rowless.update(one for one in self._waiting if not self._aggregates.has(*one))
        return whole(self)

    monkeypatch.setattr(EntityAggregates, "changes", changes)


@mutant
def known_items_that_are_not_saved(monkeypatch):
    """Another process draws other negatives."""
    monkeypatch.setattr(KnownItems, "changes", lambda _: [])


@mutant
def a_duplicate_that_makes_an_item_known_once_more(monkeypatch):
    """So that negatives depend on what a producer sends again."""
    whole = Join.impression

    def impression(self, request, message):
        whole(self, request, message)
        return self.knows(request.impression_id) and request.impression_id in self._pending

    monkeypatch.setattr(Join, "impression", impression)


@mutant
def drawn_rows_that_are_not_saved_with_their_impression(monkeypatch):
    """A restart forgets what was drawn."""
    whole = Pending.entry
    monkeypatch.setattr(Pending, "entry", lambda self, kind: None if kind == "drawn" else whole(self, kind))


@mutant
def an_impression_of_a_new_item_among_drawn_negatives(monkeypatch):
    """Which no drawn row could have had."""
    whole = Sampling.kept
    monkeypatch.setattr(Sampling, "kept", lambda self, example, *, is_alone: whole(self, example, is_alone=False))


@mutant
def updates_in_the_partition_of_their_example(monkeypatch):
    """So that several partitions count an entity, as if it were theirs alone."""
    monkeypatch.setattr(aggregation, "crc32", lambda key: random.randrange(2**32))


@mutant
def a_push_that_a_zombie_makes(monkeypatch):
    """It says that it is the latest of all."""
    whole = worker.push_waiting

    def push(counted, positions, shown_ms, factory, pusher):
        return whole(counted, dict.fromkeys(positions, 2**62), shown_ms, factory, pusher)

    monkeypatch.setattr(worker, "push_waiting", push)


@mutant
def a_push_before_its_commit(monkeypatch):
    """What is committed later may be counted in another order of pushes."""
    whole = worker.StreamWorker._join

    def join(self, messages, now_ms):
        advances = whole(self, messages, now_ms)
        self._push()
        return advances

    monkeypatch.setattr(worker.StreamWorker, "_join", join)


@mutant
def a_push_that_failed_taken_for_one_that_came_through(monkeypatch):
    whole = worker.push_waiting

    def push(counted, positions, shown_ms, factory, pusher):
        try:
            whole(counted, positions, shown_ms, factory, pusher)
        finally:
            for of_it in counted.values():
                of_it.pushed()

    monkeypatch.setattr(worker, "push_waiting", push)


@mutant
def messages_that_must_wait_for_the_next_step_lost(monkeypatch):
    monkeypatch.setattr(Partition, "put_back", lambda self, taken: None)


@mutant
def positions_that_move_before_their_messages_are_joined(monkeypatch):
    """Those that must wait for the next step are among them."""
    whole = Partition.take

    def take(self, caught_up, limit):
        turn = whole(self, caught_up, limit)
        for taken in turn:
            self.positions = Positions(str, {**self.positions, taken.message.topic: taken.message.offset + 1})
        return turn

    def move_on(self, key, offset):
        self._offsets[key] = max(self._offsets.get(key, 0), offset + 1)

    monkeypatch.setattr(Partition, "take", take)
    monkeypatch.setattr(Positions, "take", move_on)


@mutant
def a_pause_found_by_what_was_polled(monkeypatch):
    """An input is taken for caught up when its buffer is empty."""
    monkeypatch.setattr(inputs.Inputs, "caught_up", lambda self, ends: set(ends))


@mutant
def records_kept_after_an_error(monkeypatch):
    """The first batch that a worker has committed is sent again."""
    whole, kept = worker.StreamWorker._forget_uncommitted, set[int]()

    def forget(self):
        if self._records and id(self) not in kept:
            kept.add(id(self))
        else:
            whole(self)

    monkeypatch.setattr(worker.StreamWorker, "_forget_uncommitted", forget)


@mutant
def a_dead_letter_that_is_dropped(monkeypatch):
    monkeypatch.setattr(
        worker.StreamWorker,
        "_put_aside",
        lambda self, letter: None if letter.code == "outside_window" else self._records.append(_record(self, letter)),
    )


def _record(self: Any, letter: DeadLetter) -> worker.Outgoing:
    topic = self._job.topics.dead_letters(letter.message.topic)
    return worker.Outgoing(topic, letter.message.partition, *letter.record())


@mutant
def records_kept_across_a_rebalance(monkeypatch):
    """What was not committed when the partitions moved is committed after it, and made again."""
    whole = worker.StreamWorker._restore

    def restore(self):
        kept = self._records
        whole(self)
        self._records = kept

    monkeypatch.setattr(worker.StreamWorker, "_restore", restore)
