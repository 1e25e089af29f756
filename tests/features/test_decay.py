"""Running aggregates with a half-life: what is old decays, and leaves."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.aggregates import Aggregates
from features.config import AggregateConfig
from runtime.errors import InvalidInputError

HOUR_MS = 3_600_000
RECENT = AggregateConfig(
    entity="item",
    push_source="recent",
    half_life_seconds=3_600,
    columns={"shown": "count", "stars": "sum(rating)", "mean": "mean(rating)", "likes": "rate(like, 0.1, 4)"},
)
SLOW = RECENT.model_copy(update={"push_source": "slow", "half_life_seconds": 86_400.0, "columns": {"shown": "count"}})
FOR_EVER = RECENT.model_copy(update={"push_source": "ever", "half_life_seconds": None, "columns": {"shown": "count"}})


def row(aggregates: Aggregates, entity_id: int | str, source: str = "recent") -> dict[str, float]:
    return {name: values[0] for name, values in aggregates.rows(source, "item", [entity_id]).items()}


def aggregated(configs: list[AggregateConfig], examples: list[tuple[int, float | None]]) -> Aggregates:
    aggregates = Aggregates(configs)
    for event_time_ms, rating in examples:
        aggregates.add("item", "a", {"rating": rating, "like": 1.0}, event_time_ms)
    return aggregates


def test_an_example_has_half_its_weight_after_a_half_life() -> None:
    aggregates = aggregated([RECENT, SLOW, FOR_EVER], [(0, 4.0), (HOUR_MS, None), (2 * HOUR_MS, 1.0)])

    assert row(aggregates, "a") == {
        "shown": 1.75,
        "stars": 2.0,
        "mean": 2.0 / 1.25,
        "likes": pytest.approx((1.75 + 0.4) / (1.75 + 4)),
    }
    assert row(aggregates, "a", "slow")["shown"] == pytest.approx(1 + 2 ** -(1 / 24) + 2 ** -(2 / 24))
    assert row(aggregates, "a", "ever") == {"shown": 3.0}


def test_a_rate_of_nobody_is_its_prior() -> None:
    assert row(Aggregates([RECENT]), "nobody") == {"shown": 0.0, "stars": 0.0, "mean": 0.0, "likes": 0.1}


_EXAMPLES = st.lists(
    st.tuples(st.integers(0, 100 * HOUR_MS), st.one_of(st.none(), st.integers(-5, 5).map(float))),
    min_size=1,
    max_size=12,
)


@given(_EXAMPLES, st.randoms(use_true_random=False))
def test_examples_in_any_order_have_the_weights_of_their_ages(
    examples: list[tuple[int, float | None]], random: object
) -> None:
    newest_ms = max(time_ms for time_ms, _ in examples)
    weights = [2.0 ** -((newest_ms - time_ms) / HOUR_MS) for time_ms, _ in examples]
    rated = [(weight, rating) for weight, (_, rating) in zip(weights, examples, strict=True) if rating is not None]
    shuffled = examples.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined] # a random.Random

    found = row(aggregated([RECENT], shuffled), "a")
    assert found["shown"] == pytest.approx(math.fsum(weights), abs=1e-9)
    # Below a millionth of a label nothing is left of it.
    assert found["stars"] == pytest.approx(math.fsum(w * rating for w, rating in rated), rel=1e-9, abs=1e-4)


@given(_EXAMPLES, st.integers(0, 12))
def test_a_state_that_was_logged_goes_on(examples: list[tuple[int, float | None]], split: int) -> None:
    whole = aggregated([RECENT, FOR_EVER], examples)
    before = aggregated([RECENT, FOR_EVER], examples[:split])

    after = Aggregates([RECENT, FOR_EVER])
    if before.has("item", "a"):
        after.restore("item", "a", json.loads(json.dumps(before.state_of("item", "a"))))
    for time_ms, rating in examples[split:]:
        after.add("item", "a", {"rating": rating, "like": 1.0}, time_ms)
    assert after.state_of("item", "a") == whole.state_of("item", "a")


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2**53, 2**63 - 1]), st.sampled_from([-1e30, 1e-30, 1e30]))))
def test_extreme_times_and_labels_leave_all_numbers_finite(examples: list[tuple[int, float]]) -> None:
    short = RECENT.model_copy(update={"half_life_seconds": 1e-300})
    for config in (RECENT, short):
        aggregates = aggregated([config], list(examples))
        aggregates.evict(2.0**63)
        assert all(map(math.isfinite, [*aggregates.state_of("item", "a"), *row(aggregates, "a").values()]))


def test_old_labels_leave_while_their_entity_stays() -> None:
    aggregates = aggregated([RECENT], [(0, 4.0), (21 * HOUR_MS, None)])

    assert row(aggregates, "a")["mean"] == 0.0
    assert row(aggregates, "a")["shown"] == 1.0 + 2.0**-21


def test_an_entity_leaves_when_a_millionth_of_an_example_is_left() -> None:
    aggregates = aggregated([RECENT], [(0, 4.0), (0, 5.0), (HOUR_MS, 3.0)])  # two examples, as of HOUR_MS
    aggregates.add("item", "b", {}, 30 * HOUR_MS)
    aggregates.clear_changed()

    assert aggregates.evict(22 * HOUR_MS - 1) == []
    assert aggregates.evict(22 * HOUR_MS) == [("item", "a")]
    assert aggregates.changed() == {"item": ["a"]}
    assert not aggregates.has("item", "a")
    assert aggregates.has("item", "b")
    assert row(aggregates, "a")["likes"] == 0.1


def test_an_entity_with_sums_that_do_not_decay_stays() -> None:
    assert aggregated([RECENT, FOR_EVER], [(0, 4.0)]).evict(1e300) == []


def test_ids_of_both_types_may_leave_at_one_time() -> None:
    aggregates = Aggregates([RECENT])
    for entity_id in (7, "7", "b"):
        aggregates.add("item", entity_id, {}, 0)

    assert aggregates.evict(20 * HOUR_MS) == [("item", 7), ("item", "7"), ("item", "b")]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 90)), max_size=30), st.integers(0, 120))
def test_who_leaves_is_the_same_after_a_restart(examples: list[tuple[int, int]], hours: int) -> None:
    first, second = Aggregates([RECENT, SLOW]), Aggregates([RECENT, SLOW])
    for item, hour in examples:
        first.add("item", item, {"rating": 1.0}, hour * HOUR_MS)
    first.evict(hours * HOUR_MS)
    for item in range(4):
        if first.has("item", item):
            second.restore("item", item, json.loads(json.dumps(first.state_of("item", item))))

    for later in (24 * 20, 24 * 21, 24 * 30):
        assert sorted(first.evict(later * HOUR_MS)) == sorted(second.evict(later * HOUR_MS))


def test_a_state_of_another_half_life_is_refused() -> None:
    state = aggregated([RECENT], [(0, 4.0)]).state_of("item", "a")
    changed = RECENT.model_copy(update={"half_life_seconds": 60.0})

    with pytest.raises(InvalidInputError, match=r"state has a half-life of 3600 s, the project's is 60 s"):
        Aggregates([changed]).restore("item", "a", state)


def test_a_state_without_a_half_life_is_refused_by_aggregates_with_one() -> None:
    without = RECENT.model_copy(update={"half_life_seconds": None})
    state = aggregated([without], [(0, 4.0)]).state_of("item", "a")

    with pytest.raises(InvalidInputError, match="the logged state has 6 numbers, the project's aggregates need 7"):
        Aggregates([RECENT]).restore("item", "a", state)


def test_without_a_half_life_a_state_is_what_it_was_before_there_were_any() -> None:
    aggregates = aggregated([FOR_EVER.model_copy(update={"columns": RECENT.columns})], [(5, 0.1), (3, None), (9, 0.2)])

    # time, examples, then (sum, labels) of like and of rating
    assert aggregates.state_of("item", "a") == [9, 3.0, 3.0, 3.0, 0.1 + 0.2, 2.0]
