"""Teacher: its logits in the cache, and how it is trained.

Doors: `teacher_parts`, `generations`.
Imports: `graft`, `graft.commands`, `graft.init`, `graft.fit`, `teacher_cache`, `stream`, `features`, `runtime`.
"""
