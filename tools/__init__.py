"""The hall that joins the rooms: the command line, its jobs and the benchmark."""
