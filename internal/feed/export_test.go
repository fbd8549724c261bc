package feed

// SelectForTest returns the query of a poll.
func (t *Tags) SelectForTest() string { return t.query }
