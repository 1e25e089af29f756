"""Every process of a project in one terminal.

Doors: `command`, `run`, `client`.
Imports: `lab.embedded`, `graft`, `student`, `stream`, `features`, `runtime`.
"""
