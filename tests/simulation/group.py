"""A simulated consumer group: static members, generations, eager rebalances, and fencing of who was replaced."""

from collections.abc import Sequence
from itertools import count
from typing import Protocol

from kafka import TopicPartition
from kafka.errors import CommitFailedError, FencedInstanceIdError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

SESSION_MS = 6_000.0


class Member(Protocol):
    """A consumer of the group, seen from the coordinator."""

    instance: str
    member_id: str

    def assign(self, partitions: list[TopicPartition], generation: int) -> None:
        """The group has given it these partitions."""
        ...


class Group:
    """A group that reads some topics, each with the partitions 0 to `partitions` - 1."""

    def __init__(self, name: str, partitions: int) -> None:
        self.name = name
        self.generation = 0
        self.members: dict[str, Member] = {}
        self.offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        self._partitions = partitions
        self._topics: Sequence[str] = ()
        self._is_stable = True
        self._joined: set[str] = set()
        self._assigned: dict[str, list[TopicPartition]] = {}
        self._ids = count()

    def join(self, member: Member, topics: Sequence[str]) -> None:
        """Take a new member in; one of the same instance loses its place to it, and its partitions when all is calm."""
        self._topics = topics
        member.member_id = f"{member.instance}-{next(self._ids)}"
        replaced = next((m for m in self.members.values() if m.instance == member.instance), None)
        self.members[member.member_id] = member
        if replaced is None:
            self._is_stable = False
            self.rejoin(member)
            return
        del self.members[replaced.member_id]
        self._joined.discard(replaced.member_id)
        self._assigned[member.member_id] = self._assigned.pop(replaced.member_id, [])
        if self._is_stable:
            member.assign(self._assigned[member.member_id], self.generation)
        else:
            self.rejoin(member)

    def must_rejoin(self, member: Member) -> bool:
        """Whether a rebalance waits for this member."""
        return not self._is_stable and member.member_id not in self._joined

    def rejoin(self, member: Member) -> None:
        """The member takes part in the rebalance under way."""
        self._joined.add(member.member_id)
        self._complete()

    def remove(self, member: Member) -> None:
        """A member's session has ended."""
        if self.members.get(member.member_id) is not member:
            return
        del self.members[member.member_id]
        self._joined.discard(member.member_id)
        self._is_stable = False
        self._complete()

    def check(self, member: Member) -> bool:
        """Whether it still is a member; FencedInstanceIdError where another one has its instance's place."""
        if self.members.get(member.member_id) is member:
            return True
        if any(m.instance == member.instance for m in self.members.values()):
            raise FencedInstanceIdError
        return False

    def check_identity(self, identity: ConsumerGroupMetadata) -> None:
        """Refuse a commit by who is no member of this generation; who does not say so is not checked."""
        if identity.generation_id < 0 and not identity.member_id:
            return
        instances = {m.instance: m.member_id for m in self.members.values()}
        held = instances.get(identity.group_instance_id)
        if held is not None and held != identity.member_id:
            raise FencedInstanceIdError
        if held is None or identity.generation_id != self.generation:
            raise CommitFailedError(f"generation {identity.generation_id} is not {self.generation}")

    def _complete(self) -> None:
        """End the rebalance when every member has joined: the same numbers of all topics to one member."""
        if self._is_stable or not self.members or self._joined != set(self.members):
            return
        self.generation += 1
        self._is_stable, self._joined = True, set()
        ordered = sorted(self.members.values(), key=lambda member: member.instance)
        self._assigned = {
            member.member_id: [
                TopicPartition(topic, number)
                for topic in self._topics
                for number in range(self._partitions)
                if number * len(ordered) // self._partitions == place
            ]
            for place, member in enumerate(ordered)
        }
        for member in ordered:
            member.assign(self._assigned[member.member_id], self.generation)
