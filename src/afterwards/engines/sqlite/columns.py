"""Parts of SQL that several operations share.

States are literals in all SQL, for only then is a partial index certain to be used.
"""

from afterwards.engines.sqlite.shapes import SHAPE

COLUMNS = ", ".join(SHAPE)
"""The columns of a task, in the order in which ``rows`` reads them."""

# What is queued lies in two indexes: what has a limit lies apart, so that the others need not be told apart.
QUEUED = "state = 'queued' AND limit_key = ''"
LIMITED = "state = 'queued' AND limit_key != ''"

ASIDE = "aside_from IS NOT NULL"
