"""The learner: two arms, their losses and steps, and the process that publishes versions."""
