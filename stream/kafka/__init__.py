"""How graft meets Kafka: clients, groups, transactions, what cannot be decoded, dead letters and skips.

Imports the contracts of stream: events, tasks, messages, config.
"""
