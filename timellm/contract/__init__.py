"""What a run is asked and what it answers: settings, columns, result, names of files, the input error."""
