"""What drives billing: commands, events, the outbox, the clock."""
