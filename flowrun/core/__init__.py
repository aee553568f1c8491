"""The pure model: what jobs and flows are and what follows from what. No clock, socket, JSON or random number."""
