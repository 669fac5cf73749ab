"""Pure decisions: what an act on an account says, what an event is worth."""
