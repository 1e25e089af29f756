"""What is read after the stream: examples and teacher requests, from their topics or the example log.

Imports stream.kafka.
"""
