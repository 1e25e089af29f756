"""The study: a grid of learners over one example log, without Kafka, and its results as tables and plots."""
