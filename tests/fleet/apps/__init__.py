"""Applications whose tasks run on a Celery fleet."""
