"""The scoring endpoint: the hot swap, the request contract, the numpy model. No torch, Feast or Kafka."""
