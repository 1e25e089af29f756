"""Reads features from Redis as they are now.

Doors: `reader` for the stream, `async_reader` for the scorer, `served_rows`.
Imports: `features`, `runtime`; never Feast.
"""
