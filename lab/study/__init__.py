"""The study: a grid of learners over one example log, without Kafka, and its results as tables and plots.

Doors: `command`, `studied`, `grid`, and the rooms `log`, `learners`, `findings`.
Imports: `lab`, `lab.pairs`, `graft`, `student`, `teacher_cache`, `stream`, `features`, `runtime`.
"""
