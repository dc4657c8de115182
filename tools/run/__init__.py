"""What every job shares: run folder, fitting, devices, shards, workers, progress."""
