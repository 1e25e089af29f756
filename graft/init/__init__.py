"""Reads logs and tables of any common form: writes a project from them, or tells what is in them.

Doors: `log`, `roles`, `plan`, `write`, `look`.
Imports: `graft`, `student`, `teacher_cache`, `stream`, `features`, `runtime`.
"""
