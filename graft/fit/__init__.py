"""Trains a teacher on the source's log.

Doors: `domain` (reads both sides), `fit` (the recipe), `design` (what a teacher takes), `network`, `onnx_file`.
Imports: `graft`, `graft.init`, `student.evaluate`, `stream`, `features`, `runtime`.
"""
