"""Task functions: declared with ``@task``, known by name, called, chained and scheduled."""
