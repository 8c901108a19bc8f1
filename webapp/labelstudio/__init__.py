"""Label Studio as a client of a project: its labeling configuration, its results, its webhooks."""
