"""Projects: settings, people, and what a project's status page says."""
