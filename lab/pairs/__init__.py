"""The makers of the example pairs: each writes a whole project folder.

Doors: `command`, `project_folder`, `movielens`, `simulated`.
Imports: `graft`, `student`, `runtime`.
"""
