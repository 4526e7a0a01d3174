"""Parts of SQL that several operations share.

States are literals in all SQL, because only then is a partial index certain to be used.
"""

from afterwards.engines.sqlite.shapes import SHAPE

COLUMNS = ", ".join(SHAPE)
"""The columns of a task, in the order in which ``rows`` reads them."""

# Queued tasks are in two indexes. Those with a limit have their own, so that a scan of the others need not skip them.
QUEUED = "state = 'queued' AND limit_key = ''"
LIMITED = "state = 'queued' AND limit_key != ''"

ASIDE = "aside_from IS NOT NULL"
