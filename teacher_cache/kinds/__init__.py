"""Teachers of every kind behind one interface, teacher_cache.teacher.

Doors: `load` (the project's), `onnx_teacher`.
Imports: `teacher_cache`, `runtime`.
"""
