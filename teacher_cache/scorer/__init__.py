"""The batch scorer beside the stream.

Imports teacher_cache.profiles.
"""
