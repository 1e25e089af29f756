"""How graft meets Kafka: clients, groups, transactions, what cannot be decoded, dead letters.

Doors: `connection`, `topics`, `groups`, `dead_letters`, `decoding`, `security`.
Imports: `stream`, `runtime`.
"""
