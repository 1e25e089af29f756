"""Event files: read, checked, and sent to Kafka at a pace.

Imports stream.join and stream.kafka.
"""
