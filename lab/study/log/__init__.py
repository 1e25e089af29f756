"""The log of a study: read or joined in memory, its online store, and the slices by which it is judged.

Front: `study_log`, `log_in_memory`, `memory_store`. Imports features, stream, student and graft.
"""
