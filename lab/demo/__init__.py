"""An example pair, dev until all is learnt, the study as a process of its own, and one report.

Doors: `command`, `run`.
Imports: `lab`, `lab.dev`, `lab.embedded`, `lab.pairs`, `graft`, `student`, `stream`, `runtime`.
"""
