"""The learner: two arms, their losses and steps, and the process that publishes versions.

Doors: `learner`, `setup`, `config`, `bootstrap`, `batch`, and the rooms `network`, `posterior`, `process`.
Imports: `student.versions`, `student.evaluate`, `teacher_cache`, `stream`, `features`, `runtime`; torch
stands here and in graft.fit.
"""
