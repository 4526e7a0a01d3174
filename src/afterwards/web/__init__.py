"""Everything that FastAPI sees: the installation, the injected BackgroundTasks, the embedded worker."""
