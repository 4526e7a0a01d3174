"""Tests of a Celery fleet: real workers, over private brokers. The folder must not be called as Celery's package is."""
