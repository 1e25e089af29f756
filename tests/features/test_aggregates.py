"""Running counts, sums and means."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.aggregates import Aggregates
from features.config import AggregateConfig, Expression, parse_expression
from runtime.errors import ConfigurationError, InvalidInputError
from tests.features.examples import count_example

USERS = AggregateConfig(
    entity="user",
    push_source="users",
    columns={"shown": "count", "likes": "sum(like)", "rate": "mean(like)", "stars": "mean(rating)"},
)
ITEMS = AggregateConfig(entity="item", push_source="items", columns={"rate": "mean(like)"})
MORE_USERS = AggregateConfig(entity="user", push_source="more", columns={"loves": "sum(love)"})
CONFIGS = [USERS, ITEMS, MORE_USERS]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("count", Expression("count", "")),
        ("sum(like)", Expression("sum", "like")),
        (" mean(rating_2) ", Expression("mean", "rating_2")),
        ("rate(like, 0.1, 20)", Expression("rate", "like", 0.1, 20.0)),
        ("rate( like ,-2.5,1e3)", Expression("rate", "like", -2.5, 1_000.0)),
    ],
)
def test_the_four_expressions_are_read(text, expression):
    assert parse_expression(text) == expression


@pytest.mark.parametrize(
    "text",
    [
        "",
        "counts",
        "count()",
        "max(like)",
        "mean()",
        "mean(like",
        "sum(a b)",
        "mean(like);",
        "rate(like)",
        "rate(like, 1)",
    ],
)
def test_any_other_expression_is_refused(text):
    with pytest.raises(
        ConfigurationError, match=r"must be count, sum\(TASK\), mean\(TASK\) or rate\(TASK, PRIOR, STRENGTH\), got "
    ):
        parse_expression(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("rate(like, x, 5)", "PRIOR must be a number in [-1e12, 1e12], got x"),
        ("rate(like, nan, 5)", "PRIOR must be a number in [-1e12, 1e12], got nan"),
        ("rate(like, 1e13, 5)", "PRIOR must be a number in [-1e12, 1e12], got 1e13"),
        ("rate(like, 0.1, 0)", "STRENGTH must be a number in (0, 1e12], got 0"),
        ("rate(like, 0.1, inf)", "STRENGTH must be a number in (0, 1e12], got inf"),
    ],
)
def test_a_rate_says_which_of_its_numbers_is_wrong(text, fault):
    with pytest.raises(ConfigurationError) as error:
        parse_expression(text)
    assert error.value.faults == (f"{text!r}: {fault}",)


def test_labels_are_counted_summed_and_averaged_per_user_and_per_item():
    aggregates = Aggregates(CONFIGS)
    count_example(aggregates, "a", 1, {"like": 1.0, "rating": 5.0, "love": 1.0}, 1_000)
    count_example(aggregates, "a", 2, {"like": 0.0, "rating": None, "love": 0.0}, 3_000)
    count_example(aggregates, "b", 1, {"like": 0.0, "rating": 2.0}, 2_000)

    assert aggregates.rows("users", "user", ["a", "b", "nobody"]) == {
        "shown": [2.0, 1.0, 0.0],
        "likes": [1.0, 0.0, 0.0],
        "rate": [0.5, 0.0, 0.0],
        "stars": [5.0, 2.0, 0.0],
    }
    assert aggregates.rows("items", "item", [1, 2]) == {"rate": [0.5, 0.0]}
    assert aggregates.rows("more", "user", ["a"]) == {"loves": [1.0]}
    assert aggregates.state_of("user", "a")[:2] == [3_000, 2]


def test_changed_names_each_entity_once_until_it_is_cleared():
    aggregates = Aggregates(CONFIGS)
    for item in (3, 1, 3):
        count_example(aggregates, 7, item, {"like": 1.0}, 0)

    assert aggregates.changed() == {"user": [7], "item": [1, 3]}
    aggregates.clear_changed()
    assert aggregates.changed() == {"user": [], "item": []}


def test_an_entity_without_aggregates_is_not_kept():
    aggregates = Aggregates([ITEMS])
    count_example(aggregates, 1, 2, {"like": 1.0}, 0)

    assert aggregates.changed() == {"item": [2]}


_EXAMPLES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 3.0]))),
    max_size=20,
)


@given(_EXAMPLES, st.integers(0, 20))
def test_a_state_that_went_through_json_continues_as_if_never_stopped(examples, stop):
    whole, first, second = Aggregates(CONFIGS), Aggregates(CONFIGS), Aggregates(CONFIGS)
    for at, (user, item, like) in enumerate(examples):
        count_example(whole, user, item, {"like": like}, at)
        if at < stop:
            count_example(first, user, item, {"like": like}, at)
    for entity, ids in first.changed().items():
        for entity_id in ids:
            second.restore(entity, entity_id, json.loads(json.dumps(first.state_of(entity, entity_id))))
    for at, (user, item, like) in list(enumerate(examples))[stop:]:
        count_example(second, user, item, {"like": like}, at)

    everyone = range(4)
    assert second.rows("users", "user", everyone) == whole.rows("users", "user", everyone)
    assert second.rows("items", "item", everyone) == whole.rows("items", "item", everyone)


def test_a_state_of_other_aggregates_is_refused():
    with pytest.raises(InvalidInputError, match="the logged state has 2 numbers, the project's aggregates need 4"):
        Aggregates([ITEMS]).restore("item", 1, [0.0, 1.0])
