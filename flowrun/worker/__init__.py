"""What only a worker does: claim, run, settle, and keep its house in order."""
