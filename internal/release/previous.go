package release

// Previous is the commit of the release before the next one. This source is upgraded from
// it and runs beside it. A test compares it with the tags.
const Previous = "cacb93809f3e6e1438c71c4aa51d319373df6fa4"
