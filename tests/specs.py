"""Feature specs for tests in which only the features matter."""

from features.spec import Feature, FeatureSpec


def spec_of(*features: Feature) -> FeatureSpec:
    """A spec of these features, with integer ids of users and items."""
    return FeatureSpec(
        feast_project="p",
        user_join_key="user_id",
        item_join_key="item_id",
        user_id_type="int",
        item_id_type="int",
        entity_key_serialization_version=3,
        features=features,
    )
