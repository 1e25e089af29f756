"""What the results of a grid show: intervals, comparisons, the answer in words, tables and plots.

Doors: `findings`, `comparison`, `answer`, `headline`.
Imports: `lab`, `lab.study`, `lab.study.learners`, `lab.study.log`, `student`, `stream`, `runtime`.
"""
