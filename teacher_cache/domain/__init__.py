"""From a target row to the teacher's logits: the domain map, its faults, and the call.

Imports teacher_cache.kinds.
"""
