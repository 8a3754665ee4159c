"""The processes of one edge box; one folder per OS process, plus what they share."""
