"""Logits in Redis: their layout, what identifies them, what lies there.

Imports teacher_cache.domain.
"""
