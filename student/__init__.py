"""Model, losses, learner, progressive evaluation, versions, hot swap, scoring endpoint."""
