"""Models that operators add: from a checkpoint to files in the store and a record in KV."""
