"""Models from elsewhere: MODEL_SOURCE is synced into MODEL_DIR, from where they are served."""
