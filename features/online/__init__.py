"""Reads features from Redis as they are now: reader for the stream, async_reader for the scorer.

Imports the front files of features; never Feast.
"""
