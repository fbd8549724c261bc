package feed

// SelectForTest reads what has changed.
func (t *Tags) SelectForTest() string { return t.query }
