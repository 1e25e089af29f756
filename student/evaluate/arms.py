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
"""Those that a learner predicts with row by row, in the order of axis A and of every table and picture."""

SERVED_STUDENT = "served_student"
"""What serving would have said: of the versions whose examples had all closed when the impression came, the newest."""
SERVED_CONTROL = "served_control"
"""What the control in the same version says."""

SERVED_ARMS = (SERVED_STUDENT, SERVED_CONTROL)
"""Those of published versions, in the order of axis A."""

ALL_ARMS = (*ARMS, *SERVED_ARMS)
"""The order of tables."""
