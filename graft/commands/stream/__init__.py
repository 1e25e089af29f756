"""``graft replay``, ``graft stream`` and ``graft dlq``: events, the join, and what it could not use."""
