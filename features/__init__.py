"""Feast: the feature spec, apply and materialize, streaming aggregates, online readers."""
