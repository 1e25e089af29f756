"""``graft teacher``: its logits in the cache, and how it is trained. Front: teacher_parts.py, which others use too."""
