"""The networks of an arm: layers, heads, losses, optimizers, and the statistics of their columns.

Doors: `arm`, `model`, `heads`.
Imports: `student.learn`, `student.versions`, `stream`.
"""
