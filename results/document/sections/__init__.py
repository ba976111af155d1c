"""The sections of a report: what each of them says, as values that its template prints."""
