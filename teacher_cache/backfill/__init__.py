"""A history scored into the cache.

Imports teacher_cache.cache.
"""
