"""How close flowrun comes to the floor: `python -m benchmarks.run`. See README.md."""
