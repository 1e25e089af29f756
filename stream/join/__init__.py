"""The pure part of the stream: from messages to examples, without Kafka or a clock.

Imports the contracts of stream and stream.kafka.
"""
