"""The floor: hand-written SQL and the thinnest worker that could do the same work, to hold flowrun against."""
