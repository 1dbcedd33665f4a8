"""MLflow behind our tokens: an application that serves MLflow's own, and stands before every route of it."""
