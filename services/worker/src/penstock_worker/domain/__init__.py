"""Pure decisions: who shares a batch, when an item stops, how it ended."""
