"""What the teacher says of an id on average.

Imports teacher_cache.cache.
"""
