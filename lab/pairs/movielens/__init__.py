"""MovieLens-1M as the source, MovieLens-100K as the target."""
