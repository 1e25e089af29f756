"""What the results of a grid show: intervals, comparisons, the answer in words, tables and plots.

Front: `findings`, `comparison`, `answer`. Imports `lab.study.learners`, `lab.study.log` and the grid.
"""
