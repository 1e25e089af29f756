"""The pure part of the stream: from messages to examples, without a clock or a connection.

Doors: `step`, `partition`, `validation`, `sampling`, `aggregation`.
Imports: `stream`, `stream.kafka`, `features`, `runtime`.
"""
