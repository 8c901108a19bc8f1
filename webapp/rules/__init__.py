"""Rules of a project: written and tried out on its pages, applied by the pilot, their labels reviewed by people."""
