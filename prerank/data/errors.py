"""The one error of the room: the user's data breaks a rule.

Raised at the border, where files and requests are read; the message names the thing, the rule and
what came, one line a problem.
"""


class DataError(ValueError):
    """Something in the data is wrong; the message says what, where and what would be right."""
