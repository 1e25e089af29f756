"""A history scored into the cache.

Doors: `backfill`, `histories`, `backfill_report`.
Imports: `teacher_cache`, `teacher_cache.cache`, `teacher_cache.domain`, `stream`, `features`, `runtime`.
"""
