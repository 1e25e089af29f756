"""A Gaussian over a linear model of the columns, learnt row by row.

Imports student.learn.network.
"""
