// Package release has the version of this source, and the release before it.
package release

// Version is the version of the next release. The OpenAPI document and both clients have
// the same one; a test compares them.
const Version = "1.0.0"
