"""The study: a grid of learners over one example log, without Kafka, and what it says in tables and plots."""
