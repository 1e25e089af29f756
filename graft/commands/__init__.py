"""The commands, by noun; graft.cli lists them. Each loads only what it needs, so imports stand inside them.

Doors: `options` (what they share), and the rooms `stream`, `teacher`, `student`.
Imports: `graft`, `graft.init`, `graft.fit`, `student`, `teacher_cache`, `stream`, `features`, `runtime`.
"""
