"""Student: learner, scorer, and the versions between them.

Doors: `train`, `serve`, `versions`.
Imports: `graft`, `graft.commands`, `graft.commands.teacher`, `student`, `teacher_cache`, `stream`, `features`,
`runtime`.
"""
