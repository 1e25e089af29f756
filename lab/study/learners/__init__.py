"""The cells of a grid: the student's own learner, the plain models and the teacher, in processes.

Doors: `plan` (all cells), `worker` (runs them), `cell` (learns one), `plain_models`.
Imports: `lab.study`, `lab.study.log`, `graft`, `student`, `teacher_cache`, `stream`, `features`, `runtime`.
"""
