"""Silver-standard data: what a teacher made in a run, as training rows for the students that will do its work."""
