from runtime.health import STANDSTILL_SECONDS, Health


class _Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_a_process_without_a_loop_is_starting() -> None:
    assert Health().reasons() == ["the process is starting"]


def test_a_process_that_waits_before_its_first_loop_says_what_for() -> None:
    health, holder = Health(), _Clock()
    health.hold(holder, "Kafka is away")
    assert health.reasons() == ["Kafka is away", "the process is starting"]


def test_a_loop_is_ready_after_its_first_round() -> None:
    health = Health()
    health.begin("join")
    assert health.reasons() == ["the join loop is starting"]
    health.round_ended("join")
    assert health.reasons() == []


def test_a_loop_that_ends_no_round_within_the_bound_is_named_with_its_seconds() -> None:
    clock = _Clock()
    health = Health(clock)
    for loop in ("join", "other"):
        health.begin(loop)
        health.round_ended(loop)
    clock.now += STANDSTILL_SECONDS
    assert health.reasons() == []
    health.round_ended("other")
    clock.now += 1
    assert health.reasons() == ["the join loop stands still since 61 s"]
    health.round_ended("join")
    assert health.reasons() == []


def test_each_holder_has_a_reason_of_its_own_until_it_releases_it() -> None:
    health, one, other = Health(), _Clock(), _Clock()
    health.begin("join")
    health.round_ended("join")
    health.hold(one, "Kafka is away")
    health.hold(one, "Kafka is still away")
    health.hold(other, "Redis is away")
    assert health.reasons() == ["Kafka is still away", "Redis is away"]
    health.release(one)
    health.release(one)
    assert health.reasons() == ["Redis is away"]


def test_a_holder_that_is_gone_holds_nothing() -> None:
    health = Health()
    health.begin("join")
    health.round_ended("join")
    health.hold(_Clock(), "nobody waits any more")
    assert health.reasons() == []
