"""How alike two names are."""

import pytest

from graft.init.names import likeness


@pytest.mark.parametrize(
    ("name", "other", "least", "most"),
    [
        ("customer_age", "user_age", 1.0, 1.0),
        ("user_rating_mean", "user_mean_rating", 1.0, 1.0),
        ("user_avg_rating", "user_mean_rating", 1.0, 1.0),
        ("user_like_share", "user_rate_liked", 1.0, 1.0),
        ("user_rating_count", "user_shown", 0.5, 0.9),
        ("user_rating_count", "user_mean_rating", 0.0, 0.0),
        ("rating_count", "rating", 0.0, 0.0),
        ("user_like_share", "user_mean_like", 0.0, 0.0),
        ("price", "mean_price", 0.5, 0.5),
    ],
)
def test_means_counts_and_shares_are_not_taken_for_each_other(name, other, least, most):
    assert least <= likeness(name, other) <= most
    assert likeness(other, name) == likeness(name, other)
