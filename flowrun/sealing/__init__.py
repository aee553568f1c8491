"""What a codec seals and opens: which values, under which context, and what they look like where they are stored.

A sealed value is a text, ``flowrun:sealed:1:KEY:BASE64``; where the column is JSON, a JSON text. What JSON has a
structure that the database looks into (the error of an outcome, the arguments of a map or a gate, a template) keeps
it, and the parts that a program has written are sealed inside.
"""

from flowrun.sealing.sealing import PLAIN, Sealing, foreign

__all__ = ["PLAIN", "Sealing", "foreign"]
