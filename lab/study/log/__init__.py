"""The log of a study: read or joined in memory, its online store, and the slices that judge it.

Doors: `study_log`, `log_in_memory`, `memory_store`.
Imports: `graft`, `student`, `teacher_cache`, `stream`, `features`, `runtime`.
"""
