"""What is read after the stream: examples and teacher requests, from their topics or the example log.

Doors: `examples`, `requests`, `example_log`, `archive`.
Imports: `stream`, `stream.kafka`, `runtime`.
"""
