"""Pure decisions: which model, until when, and what has expired."""
