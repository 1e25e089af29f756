"""The learner process around the learner: examples and logits in, versions out.

Doors: `train`, `skew_watch`.
Imports: `student.learn`, `student.learn.network`, `student.versions`, `student.evaluate`, `teacher_cache`, `stream`,
`features`, `runtime`.
"""
