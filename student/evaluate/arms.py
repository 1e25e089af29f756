"""The arms of the experiment, which are judged on the same examples."""

STUDENT = "student"
"""Learns from labels and from the teacher; it is served."""
CONTROL = "control"
"""The same student without distillation."""
TEACHER = "teacher"
"""The teacher's cached logit as it is."""
ITEM_MEAN = "item_mean"
"""The mean label of the item so far."""

ARMS = (STUDENT, CONTROL, TEACHER, ITEM_MEAN)
"""All of them, in the order of axis A and of every table and picture."""
