"""The laboratory: demo, study, example pairs, embedded servers. No room imports it; the image does not have it.

Doors: `commands`, `page`, and the rooms `demo`, `dev`, `study`, `pairs`, `embedded`.
Imports: `graft`, `student`, `teacher_cache`, `stream`, `features`, `runtime`.
"""
