"""The student: learnt from examples, published as versions, served.

Doors: the rooms `versions`, `evaluate`, `learn`, `serve`.
Imports: `teacher_cache`, `stream`, `features`, `runtime`.
"""
