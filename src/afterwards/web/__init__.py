"""The integration with FastAPI: the installation, the injected BackgroundTasks, the embedded worker."""
