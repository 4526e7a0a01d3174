"""Celery: its processes run our tasks, which they claim from our engine; and its own tasks are added like ours."""
