"""Logits in Redis: their layout, what identifies them, what lies there.

Doors: `cache`, `generation`, `generation_registry`, `inventory`.
Imports: `teacher_cache`, `teacher_cache.domain`, `teacher_cache.kinds`, `stream`, `features`, `runtime`.
"""
