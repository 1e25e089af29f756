"""A Gaussian over a linear model of the columns, learnt row by row.

Doors: `posterior`, `guard`.
Imports: `student.learn`, `student.learn.network`, `student.versions`, `stream`, `features`, `runtime`.
"""
