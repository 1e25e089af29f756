"""Progressive evaluation: every arm is judged on predictions made before their example was learnt.

Doors: `evaluation`, `arms`, `metrics`, `gate`, `served`, `history`.
Imports: `student.versions`, `stream`, `features`, `runtime`.
"""
