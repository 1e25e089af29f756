"""The registry of versions, and what learner and scorer both know of one. No torch, Feast or Kafka."""
