"""The cells of a grid: the student's own learner, the plain models and the teacher, in processes of their own.

Front: `plan` (all cells, and their keys), `worker` (runs them), `cell` (learns one). Imports `lab.study.log` and the
grid.
"""
