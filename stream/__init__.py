"""Kafka: event types, topics, the impression-feedback join, dead letters, replay."""
