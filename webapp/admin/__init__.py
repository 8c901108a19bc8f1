"""What an admin sees of the whole installation: cluster, runs, letters that died, the log, disk, backups."""
