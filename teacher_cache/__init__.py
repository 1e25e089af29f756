"""Teacher adapters, the domain map, the batch scorer, the Redis layout of logits."""
